-- Ends: how a job leaves its slot, and the one way it ends.
-- After queues and money.

local DEAD_LETTERS = 10000 -- listed at most, the newest
local AT_ONCE = 100 -- parked jobs let go together

-- A job that ran gives its tenant's turn what it took more, or less, than it was charged.
local function settle_turn(job, queue, tenant, state, started)
  local h = redis.call('HMGET', job, 'charge', 'weight', 'busy')
  if not h[1] then return end
  local took = math.max(0, clock() - tonumber(started))
  put_off(queue, tenant, took * 1000000 / tonumber(h[2] or '1') - tonumber(h[1]))
  local expected = tonumber(h[3] or '0')
  if state == 'succeeded' and expected > 0 then learn_stretch(queue, expected, took) end
end

-- A job runs no more: its backend has a slot free, and its tenant one job less in flight.
local function leave_slot(job, backend, id, tenant)
  redis.call('ZREM', 'k9:leases:' .. backend, id)
  redis.call('ZREM', 'k9:running:' .. tenant, id)
end

-- The parked jobs of a tenant that may run now, as many as it has room for: interactive ones first, then the oldest.
local function may_go(tenant, most)
  local room = most and tonumber(most) - redis.call('ZCARD', 'k9:running:' .. tenant) or 0
  if room <= 0 then return {} end
  return redis.call('ZRANGE', 'k9:parked:' .. tenant, 0, math.min(room, AT_ONCE) - 1)
end

-- The one way a job ends: every index forgets it, the relay says so, money is settled, waiters wake,
-- retention begins. `letter`: '1' when K-9 gave up on it and its caller is not to blame.
local function end_job(job, id, state, keep, fault, cost, letter)
  pcall(settle, job, cost) -- a number that Redis cannot count keeps no job from ending
  local h = redis.call('HMGET', job, 'queue', 'backend', 'operation', 'tenant', 'token', 'started_at')
  local tenant = h[4] or ''
  redis.call('HSET', job, 'state', state, 'ended_at', instant(clock()))
  if fault ~= '' then redis.call('HSET', job, 'error', fault) end
  if state == 'succeeded' or state == 'cancelled' then redis.call('HDEL', job, 'request') end
  if h[5] and h[6] then settle_turn(job, h[1], tenant, state, h[6]) end
  leave_queue(job, h[1], id, tenant, false)
  leave_slot(job, h[2], id, tenant)
  redis.call('ZREM', 'k9:deadlines', id)
  redis.call('HINCRBY', 'k9:ended', h[2] .. ' ' .. h[3] .. ' ' .. state, 1)
  record_event(job, id, 'end', '{"state":"' .. state .. '"' .. (fault ~= '' and ',"error":' .. fault or '') .. '}')
  redis.call('EXPIRE', job, keep)
  redis.call('EXPIRE', 'k9:relay:' .. id, keep)
  if letter == '1' or state == 'dead' then
    redis.call('ZADD', 'k9:dead', instant(clock()), id)
    redis.call('ZREMRANGEBYSCORE', 'k9:dead', '-inf', instant(clock() - tonumber(keep)))
    redis.call('ZREMRANGEBYRANK', 'k9:dead', 0, -DEAD_LETTERS - 1)
    redis.call('EXPIRE', 'k9:dead', keep)
  end
  wake(job, id, 'end')
end

