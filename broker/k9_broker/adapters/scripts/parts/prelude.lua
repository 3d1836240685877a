-- Stands before every script: the clock, the relay, the wake-up.
-- Keys that depend on a record (its queue's index, its backend's leases) are derived here, so K-9
-- needs one Redis, not a Redis Cluster; Celery's transport needs the same.

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function instant(seconds)
  return string.format('%.6f', seconds)
end

-- Tell every API process that waits for the job. Message: what happened, then job ids.
local function wake(job, id, what)
  local waiters = redis.call('HGET', job, 'waiters')
  if waiters then
    for waiter in string.gmatch(waiters, '%S+') do
      redis.call('PUBLISH', 'k9:wake:' .. waiter, what .. ' ' .. id)
    end
  end
end

-- Append an event to the job's relay, which lives as long as the record.
local function record_event(job, id, kind, data)
  local relay = 'k9:relay:' .. id
  redis.call('XADD', relay, '*', 'kind', kind, 'data', data)
  if redis.call('XLEN', relay) == 1 then
    redis.call('EXPIRE', relay, math.max(1, redis.call('TTL', job)))
  end
end

