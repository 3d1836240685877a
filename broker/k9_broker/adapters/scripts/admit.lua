-- admit: take the first candidate with room; write the record, the indexes and the Celery message.
-- KEYS  1 job record · 2 deadlines · 3 what `auto` embeds with, if the job's model is to be that from now on
-- ARGV  1 id · 2 fingerprint · 3 seconds allowed · 4 seconds kept after the end · 5 removals, one a line
--       6-9 message up to the model, up to the queue, middle, tail · 10 instant after which to refuse
--       11 privacy · 12 tenant · 13 nano-dollars the tenant may spend a day, or ''
--       14 number of candidates · 15 number of record words
--       then per candidate: backend, kind, queue, mark, reason, model, expected nano-dollars or ''
--       then the record's fields and values
-- Gives {'admitted', field, value, …} with what was decided here, {'duplicate'} (same id, same request),
--       {'conflict'} (same id, other request), {'late'}, {'full'}, {'budget'} (what had room would pass the
--       budget) or {'private'} (none is local). Repeating it is harmless. `strategy/admission.py` is the same rule for dry runs.
local job, deadlines = KEYS[1], KEYS[2]
local id, fingerprint = ARGV[1], ARGV[2]
local known = redis.call('HGET', job, 'fingerprint')
if known then
  return { known == fingerprint and 'duplicate' or 'conflict' }
end
if clock() > tonumber(ARGV[10]) then
  return { 'late' }
end
local budget, left = tonumber(ARGV[13]), nil
if budget then left = budget - spent_today(ARGV[12]) end

local candidates, passed, first_obstacle = tonumber(ARGV[14]), '', nil
local poor, full = false, candidates == 0
for i = 1, candidates do
  local at = 15 + (i - 1) * 7
  local backend, kind, queue, model = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]
  local cost = tonumber(ARGV[at + 7])
  local why = obstacle(ARGV[11], left, kind, queue, tonumber(ARGV[at + 4]), cost)
  if not why then
    -- Money first: the one step that Redis may refuse, when an account is past what it can count.
    local account = cost and cost > 0 and reserve(ARGV[12], cost)
    local now = clock()
    local due = now + tonumber(ARGV[3])
    local first = 15 + candidates * 7 + 1
    local decided = { 'state', 'queued', 'generation', '1', 'backend', backend, 'kind', kind, 'model', model,
      'reason', first_obstacle or ARGV[at + 5], 'skipped', passed .. ARGV[5], 'cost', ARGV[at + 7],
      'created_at', instant(now), 'deadline_at', instant(due) }
    redis.call('HSET', job, unpack(ARGV, first, first + tonumber(ARGV[15]) - 1))
    redis.call('HSET', job, 'fingerprint', fingerprint, 'queue', queue, 'attempts', 0, 'relayed', 0, unpack(decided))
    if KEYS[3] then redis.call('SET', KEYS[3], model) end
    if account then redis.call('HSET', job, 'account', account) end
    redis.call('EXPIRE', job, math.ceil(tonumber(ARGV[3]) + tonumber(ARGV[4])))
    redis.call('ZADD', deadlines, instant(due), id)
    enqueue(queue, id, 'back', ARGV[6] .. in_json(model) .. ARGV[7], ARGV[8], ARGV[9])
    return { 'admitted', unpack(decided) }
  end
  passed = passed .. backend .. ': ' .. why .. '\n'
  first_obstacle = first_obstacle or why
  poor = poor or string.sub(why, 1, 7) == 'budget:'
  full = full or why == 'overflow:depth'
end
return { full and 'full' or poor and 'budget' or 'private' }
