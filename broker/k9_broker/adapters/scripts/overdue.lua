-- overdue: what the reaper should look at. Index entries whose record is gone are dropped on the way.
-- Stands on queues.
-- KEYS  per backend: leases, then per queue of it: list, index (two queues)
-- ARGV  1 most of each kind
-- Gives {past their deadline, orphans, perhaps lost}; each id of the latter two is followed by its generation.
-- Only jobs older than the oldest waiting message of their queue can have lost theirs. A parked job has
-- none: it is as good as lost when its tenant may have more in flight.

-- A job without a record leaves its queue, and the set of whichever tenant it was.
local function forget(queue, id)
  for _, field in ipairs(redis.call('HKEYS', turns_of(queue))) do
    local tenant = string.match(field, '^of (.*)$')
    if tenant then
      step_out(queue, id, tenant)
      redis.call('SREM', queued_of(queue, tenant), id)
      redis.call('ZREM', 'k9:parked:' .. tenant, id)
    end
  end
  step_out(queue, id, '')
  redis.call('SREM', queued_of(queue, PATIENT), id)
end

local now, most = instant(clock()), tonumber(ARGV[1])
local late = redis.call('ZRANGEBYSCORE', 'k9:deadlines', '-inf', now, 'LIMIT', 0, most)
local orphans, lost = {}, {}
for at = 1, #KEYS, 5 do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[at], '-inf', now, 'LIMIT', 0, most)) do
    local generation = redis.call('HGET', 'k9:job:' .. id, 'generation')
    if generation then
      orphans[#orphans + 1] = id
      orphans[#orphans + 1] = generation
    else
      redis.call('ZREM', KEYS[at], id)
    end
  end
  for q = at + 1, at + 3, 2 do
    local oldest = redis.call('LINDEX', KEYS[q], -1)
    local number = number_of(oldest)
    local top = number and string.format('(%.0f', number) or not oldest and '+inf'
    if top then
      for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[q + 1], '-inf', top, 'LIMIT', 0, 10 * most)) do
        if #lost >= 2 * most then break end
        local h = redis.call('HMGET', 'k9:job:' .. id, 'generation', 'state')
        if h[2] ~= 'queued' then
          forget(KEYS[q], id)
        else
          lost[#lost + 1] = id
          lost[#lost + 1] = h[1]
        end
      end
    end
    local parked = parked_in(KEYS[q])
    redis.call('EXPIRE', parked, TURNS_KEPT) -- however long they wait
    for _, id in ipairs(redis.call('ZRANGE', parked, 0, 10 * most - 1)) do
      if #lost >= 2 * most then break end
      local h = redis.call('HMGET', 'k9:job:' .. id, 'generation', 'state', 'tenant', 'max_in_flight')
      if h[2] ~= 'queued' then
        forget(KEYS[q], id)
      elseif redis.call('ZCOUNT', 'k9:running:' .. h[3], now, '+inf') < tonumber(h[4] or '1') then
        lost[#lost + 1] = id
        lost[#lost + 1] = h[1]
      end
    end
  end
end
return { late, orphans, lost }
