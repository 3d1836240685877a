-- requeue: put a job back under its next generation; any older message or claim is superseded.
-- Stands on queues, money, ends.
-- KEYS  1 job record
-- ARGV  1 id · 2 generation expected · 3 why: 'orphan' (its lease ran out), 'lost' (its message did), 'parked'
--       (it may run now) or 'hand-back' · 4 token, for a hand-back · 5 attempts allowed · 6 seconds kept
--       7 error if it becomes a dead letter · 8-10 message head, middle, tail
-- Gives 'requeued', 'dead' or 'superseded'.
local job, id, why = KEYS[1], ARGV[1], ARGV[3]
local h = redis.call('HMGET', job, 'state', 'generation', 'token', 'attempts', 'queue', 'backend', 'relayed', 'tenant')
local waits = why == 'lost' or why == 'parked'
if h[2] ~= ARGV[2] then return 'superseded' end
if h[1] ~= (waits and 'queued' or 'running') then return 'superseded' end
if why == 'hand-back' and h[3] ~= ARGV[4] then return 'superseded' end
if why == 'parked' and not redis.call('ZSCORE', parked_in(h[5]), id) then return 'superseded' end
if why == 'orphan' then
  local due = redis.call('ZSCORE', 'k9:leases:' .. h[6], id)
  if due and tonumber(due) > clock() then return 'superseded' end
  if tonumber(h[4]) >= tonumber(ARGV[5]) then
    end_job(job, id, 'dead', ARGV[6], ARGV[7])
    redis.call('PUBLISH', 'k9:cancel', id)
    return 'dead'
  end
end
redis.call('HSET', job, 'state', 'queued', 'relayed', 0)
redis.call('HDEL', job, 'token', 'worker')
if why == 'hand-back' then redis.call('HINCRBY', job, 'attempts', -1) end
local generation = redis.call('HINCRBY', job, 'generation', 1)
leave_slot(job, h[6], id, h[8] or '')
enqueue(h[5], id, waits and 'again' or 'front', h[8] or '', ARGV[8], ARGV[9], ARGV[10])
if h[7] ~= '0' then
  record_event(job, id, 'restart', '{"generation":' .. generation .. '}')
  wake(job, id, 'event')
end
return 'requeued'
