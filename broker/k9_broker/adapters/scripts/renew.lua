-- renew: extend the leases a worker holds.
-- KEYS  1 leases of the backend · 2… job records
-- ARGV  1 lease seconds · then per job: id, token
-- Gives the ids of jobs that are no longer the claimant's.
local lost = {}
local due = instant(clock() + tonumber(ARGV[1]))
for i = 2, #KEYS do
  local id, token = ARGV[2 * i - 2], ARGV[2 * i - 1]
  local h = redis.call('HMGET', KEYS[i], 'state', 'token')
  if h[1] == 'running' and h[2] == token then
    redis.call('ZADD', KEYS[1], due, id)
  else
    lost[#lost + 1] = id
  end
end
return lost
