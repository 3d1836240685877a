-- replay: queue a dead letter under its next generation, with the first candidate that has room.
-- Stands on queues, money, places.
-- KEYS  1 job record · 2 deadlines · 3 relay · 4 dead letters
--       5 what `auto` embeds with, if the job's model is to be that from now on
-- ARGV  1 id · 2 generation expected · 3 seconds allowed · 4 seconds kept after the end · 5 removals, one a line
--       6-9 message up to the model, up to the queue, middle, tail
--       10 privacy · 11 tenant · 12 nano-dollars the tenant may spend a day, or ''
--       13 priority · 14 '1' if its caller is patient · 15 '1' if other tenants share the queues
--       16 number of candidates · 17 number of record words
--       then the candidates, then fields and values of the record, which take the place of those before
-- Gives {'replayed'}, {'gone'} (there is no record), {'superseded'} (it was replayed already), {'full', shortest wait},
--       {'deadline', shortest wait}, {'budget'} or {'private'}. Every older message or claim is superseded.
local job, relay, dead = KEYS[1], KEYS[3], KEYS[4]
local id, tenant = ARGV[1], ARGV[11]
local h = redis.call('HMGET', job, 'state', 'generation', 'privacy')
if not h[1] then
  redis.call('ZREM', dead, id)
  return { 'gone' }
end
if h[2] ~= ARGV[2] or (h[1] ~= 'dead' and h[1] ~= 'failed') then return { 'superseded' } end

local privacy = h[3] == 'local-only' and h[3] or ARGV[10] -- never less strict than it was
local budget = tonumber(ARGV[12])
local asked = { privacy = privacy, tenant = tenant, money = budget and budget - spent_today(tenant),
  priority = ARGV[13], patient = ARGV[14] == '1', shared = ARGV[15] == '1', left = tonumber(ARGV[3]) }
local candidates, first = tonumber(ARGV[16]), 18
local place, why, passed, shortest = choose(asked, first, candidates)
if not place then
  if candidates == 0 or why['overflow:depth'] or why['batch:waits'] then return { 'full', instant(shortest or 0) } end
  if why['overflow:deadline'] then return { 'deadline', instant(shortest) } end
  return { (why['budget:exhausted'] or why['budget:unknown-price']) and 'budget' or 'private' }
end
-- What earlier runs cost stays on the account of their day: this run's money is set aside beside it, and
-- first, because that is the one step that Redis may refuse.
local account = place.cost and place.cost > 0 and reserve(tenant, place.cost)
local now = clock()
local due = now + tonumber(ARGV[3])
redis.call('HDEL', job, 'token', 'worker', 'started_at', 'ended_at', 'error', 'tried', 'calls', 'home',
  'account', 'charge', 'budget', 'weight', 'max_in_flight', 'prompt_tokens', 'completion_tokens', 'cloud_cost')
local record = first + candidates * WORDS
redis.call('HSET', job, unpack(ARGV, record, record + tonumber(ARGV[17]) - 1))
redis.call('HSET', job, 'state', 'queued', 'backend', place.backend, 'kind', place.kind, 'queue', place.queue,
  'model', place.model, 'reason', why, 'skipped', lines_of(passed) .. ARGV[5], 'cost', place.cost_text,
  'privacy', privacy, 'attempts', 0, 'relayed', 0, 'created_at', instant(now), 'deadline_at', instant(due))
if account then redis.call('HSET', job, 'account', account) end
if KEYS[5] then redis.call('SET', KEYS[5], place.model) end
local generation = redis.call('HINCRBY', job, 'generation', 1)
redis.call('EXPIRE', job, math.ceil(tonumber(ARGV[3]) + tonumber(ARGV[4])))
redis.call('ZREM', dead, id)
redis.call('ZADD', KEYS[2], instant(due), id)
take_turn(job, place.queue, id, tenant, place.busy, ARGV[6] .. in_json(place.model) .. ARGV[7], ARGV[8], ARGV[9])
-- The relay is emptied, not deleted: its old end would end every new reader, and an empty stream keeps its last
-- id, so that whoever resumes after an event of the earlier run is given all of this one.
redis.call('XTRIM', relay, 'MAXLEN', 0)
record_event(job, id, 'restart', '{"generation":' .. generation .. '}')
wake(job, id, 'event')
return { 'replayed' }
