-- admit: take the first candidate with room; write the record, the indexes and the Celery message.
-- KEYS  1 job record · 2 deadlines
-- ARGV  1 id · 2 fingerprint · 3 seconds allowed · 4 seconds kept after the end · 5 removals, one a line
--       6-8 message head, middle, tail · 9 instant after which to refuse
--       10 number of candidates · 11 number of record words
--       then per candidate: backend, kind, queue, mark, reason · then the record's fields and values
-- Gives {'admitted', field, value, …} with what was decided here, {'duplicate'} (same id, same request),
--       {'conflict'} (same id, other request), {'late'} or {'full'}. Repeating it is harmless.
local job, deadlines = KEYS[1], KEYS[2]
local id, fingerprint = ARGV[1], ARGV[2]
local known = redis.call('HGET', job, 'fingerprint')
if known then
  return { known == fingerprint and 'duplicate' or 'conflict' }
end
if clock() > tonumber(ARGV[9]) then
  return { 'late' }
end
local candidates = tonumber(ARGV[10])
local passed = ''
for i = 1, candidates do
  local at = 11 + (i - 1) * 5
  local backend, kind, queue, mark, reason = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5]
  if redis.call('ZCARD', 'k9:waiting:' .. queue) < mark then
    local now = clock()
    local due = now + tonumber(ARGV[3])
    local first = 11 + candidates * 5 + 1
    local decided = { 'state', 'queued', 'generation', '1', 'backend', backend, 'kind', kind,
      'reason', i == 1 and reason or 'overflow:depth', 'skipped', passed .. ARGV[5],
      'created_at', instant(now), 'deadline_at', instant(due) }
    redis.call('HSET', job, unpack(ARGV, first, first + tonumber(ARGV[11]) - 1))
    redis.call('HSET', job, 'fingerprint', fingerprint, 'queue', queue, 'attempts', 0, 'relayed', 0, unpack(decided))
    redis.call('EXPIRE', job, math.ceil(tonumber(ARGV[3]) + tonumber(ARGV[4])))
    redis.call('ZADD', deadlines, instant(due), id)
    enqueue(queue, id, 'back', ARGV[6], ARGV[7], ARGV[8])
    return { 'admitted', unpack(decided) }
  end
  passed = passed .. backend .. ': overflow:depth\n'
end
return { 'full' }
