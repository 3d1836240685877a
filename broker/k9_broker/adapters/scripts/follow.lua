-- follow: have a waiter woken for a job somebody else submitted.
-- KEYS  1 job record
-- ARGV  1 waiter
-- Gives 1, or 0 when there is no such job.
local waiters = redis.call('HGET', KEYS[1], 'waiters')
if not waiters then return 0 end
if not string.find(' ' .. waiters .. ' ', ' ' .. ARGV[1] .. ' ', 1, true) then
  redis.call('HSET', KEYS[1], 'waiters', waiters .. ' ' .. ARGV[1])
end
return 1
