-- admit: take the first candidate with room; write the record, the indexes and the Celery message.
-- Stands on queues, money, places.
-- KEYS  1 job record · 2 deadlines · 3 what `auto` embeds with, if the job's model is to be that from now on
-- ARGV  1 id · 2 fingerprint · 3 seconds allowed · 4 seconds kept after the end · 5 removals, one a line
--       6-9 message up to the model, up to the queue, middle, tail · 10 instant after which to refuse
--       11 privacy · 12 tenant · 13 nano-dollars the tenant may spend a day, or ''
--       14 priority · 15 '1' if its caller is patient · 16 '1' if other tenants share the queues
--       17 number of candidates · 18 number of record words
--       then the candidates, then the record's fields and values
-- Gives {'admitted', field, value, …} with what was decided here, {'duplicate'} (same id, same request),
--       {'conflict'} (same id, other request), {'late'}, {'full', shortest wait}, {'deadline', shortest wait} (it
--       could not be kept anywhere), {'budget'} (what had room would pass it) or {'private'} (none is local).
--       Repeating it is harmless.
local job, deadlines = KEYS[1], KEYS[2]
local id, fingerprint, tenant = ARGV[1], ARGV[2], ARGV[12]
local known = redis.call('HGET', job, 'fingerprint')
if known then
  return { known == fingerprint and 'duplicate' or 'conflict' }
end
if clock() > tonumber(ARGV[10]) then
  return { 'late' }
end
local budget = tonumber(ARGV[13])
local asked = { privacy = ARGV[11], tenant = tenant, money = budget and budget - spent_today(tenant),
  priority = ARGV[14], patient = ARGV[15] == '1', shared = ARGV[16] == '1', left = tonumber(ARGV[3]) }

local candidates, first = tonumber(ARGV[17]), 19
local place, why, passed, shortest = choose(asked, first, candidates)
if not place then
  if candidates == 0 or why['overflow:depth'] or why['batch:waits'] then return { 'full', instant(shortest or 0) } end
  if why['overflow:deadline'] then return { 'deadline', instant(shortest) } end
  return { (why['budget:exhausted'] or why['budget:unknown-price']) and 'budget' or 'private' }
end
-- Money first: the one step that Redis may refuse, when an account is past what it can count.
local account = place.cost and place.cost > 0 and reserve(tenant, place.cost)
local now = clock()
local due = now + tonumber(ARGV[3])
local record = first + candidates * WORDS
local decided = { 'state', 'queued', 'generation', '1', 'backend', place.backend, 'kind', place.kind, 'model', place.model,
  'reason', why, 'skipped', lines_of(passed) .. ARGV[5], 'cost', place.cost_text,
  'created_at', instant(now), 'deadline_at', instant(due) }
redis.call('HSET', job, unpack(ARGV, record, record + tonumber(ARGV[18]) - 1))
redis.call('HSET', job, 'fingerprint', fingerprint, 'queue', place.queue, 'attempts', 0, 'relayed', 0, unpack(decided))
if KEYS[3] then redis.call('SET', KEYS[3], place.model) end
if account then redis.call('HSET', job, 'account', account) end
redis.call('EXPIRE', job, math.ceil(tonumber(ARGV[3]) + tonumber(ARGV[4])))
redis.call('ZADD', deadlines, instant(due), id)
if asked.patient and asked.priority == 'interactive' then redis.call('SADD', queued_of(place.queue, PATIENT), id) end
take_turn(job, place.queue, id, tenant, place.busy, ARGV[6] .. in_json(place.model) .. ARGV[7], ARGV[8], ARGV[9])
return { 'admitted', unpack(decided) }
