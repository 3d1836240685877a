-- stop: end a job that has not ended, whoever holds it; a running one is taken from its worker.
-- Stands on queues, money, ends.
-- KEYS  1 job record
-- ARGV  1 id · 2 state (cancelled, expired) · 3 seconds kept · 4 error · 5 '1': only past its deadline
-- Gives {state found, or '' when there is no such job, id, …}: parked jobs of its tenant that may run now.
local job, id = KEYS[1], ARGV[1]
local h = redis.call('HMGET', job, 'state', 'deadline_at', 'tenant', 'max_in_flight')
if not h[1] then
  redis.call('ZREM', 'k9:deadlines', id)
  return { '' }
end
if h[1] ~= 'queued' and h[1] ~= 'running' then return { h[1] } end
if ARGV[5] == '1' and tonumber(h[2]) > clock() then return { h[1] } end
end_job(job, id, ARGV[2], ARGV[3], ARGV[4])
if h[1] == 'running' then redis.call('PUBLISH', 'k9:cancel', id) end
return { h[1], unpack(may_go(h[3] or '', h[4])) }
