-- finish: record the outcome of a claimed job.
-- Stands on queues, money, ends.
-- KEYS  1 job record
-- ARGV  1 id · 2 token · 3 state · 4 seconds kept · 5 error or '' · 6 nano-dollars, or '' when not known
--       7 '1' if it becomes a dead letter, then fields and values of the record
-- Gives {1}, or {0} when the claim is superseded; {1, id, …} names parked jobs of its tenant that may run now.
--       Repeating it is harmless.
local job = KEYS[1]
local h = redis.call('HMGET', job, 'state', 'token', 'tenant', 'max_in_flight')
if h[2] ~= ARGV[2] then return { 0 } end
if h[1] == ARGV[3] then return { 1 } end
if h[1] ~= 'running' then return { 0 } end
if #ARGV > 7 then redis.call('HSET', job, unpack(ARGV, 8)) end
end_job(job, ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
return { 1, unpack(may_go(h[3], h[4])) }
