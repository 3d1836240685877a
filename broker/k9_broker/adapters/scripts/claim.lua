-- claim: give a worker the right to run one generation of a job.
-- Stands on queues, money, ends.
-- KEYS  1 job record
-- ARGV  1 id · 2 generation · 3 token · 4 lease seconds · 5 worker · 6 seconds kept · 7 error if expired
--       8 the worker's kind · 9 error if the job is local-only and the worker is not local
-- Gives {'claimed', field, value, …}, {'superseded'}, {'expired'}, {'private'} or {'parked'} (its tenant has as many
--       jobs in flight as it may: the job waits on, without a message). The same token may ask again.
local AFTER_ALL = 1e11 -- more than any instant
local job, id, token = KEYS[1], ARGV[1], ARGV[3]
local h = redis.call('HMGET', job, 'state', 'generation', 'token', 'queue', 'backend', 'deadline_at', 'privacy',
  'tenant', 'max_in_flight', 'created_at', 'priority')
if h[1] == 'running' and h[3] == token then
  return { 'claimed', unpack(redis.call('HGETALL', job)) }
end
if h[1] ~= 'queued' or h[2] ~= ARGV[2] then
  return { 'superseded' }
end
if h[7] == 'local-only' and ARGV[8] ~= 'local' then
  end_job(job, id, 'failed', ARGV[6], ARGV[9])
  return { 'private' }
end
local now = clock()
if tonumber(h[6]) <= now then
  end_job(job, id, 'expired', ARGV[6], ARGV[7])
  return { 'expired' }
end
if h[9] then
  local running, parked = 'k9:running:' .. h[8], 'k9:parked:' .. h[8]
  redis.call('ZREMRANGEBYSCORE', running, '-inf', instant(now))
  if redis.call('ZCARD', running) >= tonumber(h[9]) then
    park(h[4], id)
    redis.call('ZADD', parked, tonumber(h[10]) + (h[11] == 'batch' and AFTER_ALL or 0), id)
    redis.call('EXPIRE', parked, TURNS_KEPT)
    return { 'parked' }
  end
  redis.call('ZADD', running, h[6], id) -- it runs no longer than its deadline
  redis.call('EXPIRE', running, TURNS_KEPT)
end
leave_queue(job, h[4], id, h[8] or '', true)
redis.call('HSET', job, 'state', 'running', 'token', token, 'worker', ARGV[5], 'started_at', instant(now))
redis.call('HINCRBY', job, 'attempts', 1)
redis.call('ZADD', 'k9:leases:' .. h[5], instant(now + tonumber(ARGV[4])), id)
local where = redis.call('HMGET', job, 'kind', 'model', 'reason')
record_event(job, id, 'running', '{"generation":' .. h[2] .. ',"backend":' .. cjson.encode(h[5]) .. ',"kind":'
  .. cjson.encode(where[1]) .. ',"model":' .. cjson.encode(where[2]) .. ',"reason":' .. cjson.encode(where[3]) .. '}')
wake(job, id, 'event')
return { 'claimed', unpack(redis.call('HGETALL', job)) }
