-- Stands before every script: the clock, the relay, the wake-up and the one way a job ends.
-- Keys that depend on a record (its queue's index, its backend's leases) are derived here, so K-9
-- needs one Redis, not a Redis Cluster; Celery's transport needs the same.

local SPENT_KEPT = 40 * 86400 -- longer than any deadline, so that late jobs find the account of their day
local USAGE_KEPT = 400 * 86400
local MOVED_KEPT = 86400

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

-- Put a message for the job at the end ('back') or the beginning ('front') of a queue. Its sequence
-- number keeps the order of the list, so that the reaper can tell a lost message from a waiting one.
local function enqueue(queue, id, place, head, middle, tail)
  local index = 'k9:waiting:' .. queue
  local number = redis.call('INCR', 'k9:seq')
  if place == 'front' then
    local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
    if first[2] then number = tonumber(first[2]) - 1 end
  end
  local text = string.format('%.0f', number)
  redis.call('ZADD', index, text, id)
  redis.call(place == 'front' and 'RPUSH' or 'LPUSH', queue, head .. queue .. middle .. text .. tail)
end

-- A string as it stands inside a JSON string.
local function in_json(text)
  return string.sub(cjson.encode(text), 2, -2)
end

-- Days are counted in UTC since 1970.
local function today()
  return string.format('%.0f', math.floor(clock() / 86400))
end

local function spent_today(tenant)
  return tonumber(redis.call('GET', 'k9:spent:' .. tenant .. ':' .. today()) or '0')
end

-- Set money aside on a tenant's account of today, and tell which that is.
local function reserve(tenant, cost)
  local account = 'k9:spent:' .. tenant .. ':' .. today()
  redis.call('INCRBY', account, string.format('%.0f', cost))
  redis.call('EXPIRE', account, SPENT_KEPT)
  return account
end

-- Why a job may not go to a place now; nil when it may. `left`: nano-dollars its tenant may still spend,
-- nil without a budget.
local function obstacle(privacy, left, kind, queue, mark, cost)
  if privacy == 'local-only' and (kind ~= 'local' or string.sub(queue, 1, 9) ~= 'k9.local.') then
    return 'privacy:local-only'
  end
  if left and not cost then return 'budget:unknown-price' end
  if left and cost > 0 and cost > left then return 'budget:exhausted' end
  if redis.call('ZCARD', 'k9:waiting:' .. queue) >= mark then return 'overflow:depth' end
end

-- Put what a job cost in place of what was set aside for it, and on its tenant's usage of today.
-- Of a job whose cost nobody can tell, what was set aside counts if it ever ran, else nothing.
local function settle(job, cost)
  local h = redis.call('HMGET', job, 'account', 'cost', 'tenant', 'kind', 'model', 'started_at',
    'prompt_tokens', 'completion_tokens', 'cloud_cost')
  if not h[3] then return end
  local aside = tonumber(h[2] or '')
  local final = tonumber(cost or '')
  if not final and aside then
    final = h[6] and aside or 0
  end
  if final then
    if h[1] then
      if redis.call('EXISTS', h[1]) == 1 then
        redis.call('INCRBY', h[1], string.format('%.0f', final - aside))
      end
    elseif final > 0 then
      redis.call('HSET', job, 'account', reserve(h[3], final))
    end
    redis.call('HSET', job, 'cost', string.format('%.0f', final))
  end
  if not h[6] then return end
  local usage, of = 'k9:usage:' .. today() .. ':' .. h[3], ' ' .. h[4] .. ' ' .. h[5]
  local function add(what, amount)
    if amount and amount ~= 0 then
      redis.call('HINCRBY', usage, what .. of, string.format('%.0f', amount))
    end
  end
  add('jobs', 1)
  add('prompt', tonumber(h[7] or ''))
  add('completion', tonumber(h[8] or ''))
  add('cost', final)
  local cloud = tonumber(h[9] or '')
  if cloud and final then
    add('compared', final)
    add('cloud', cloud)
  end
  redis.call('EXPIRE', usage, USAGE_KEPT)
end

-- The one way a job ends: every index forgets it, the relay says so, money is settled, waiters wake,
-- retention begins.
local function end_job(job, id, state, keep, fault, cost)
  pcall(settle, job, cost) -- a number that Redis cannot count keeps no job from ending
  local h = redis.call('HMGET', job, 'queue', 'backend', 'operation')
  redis.call('HSET', job, 'state', state, 'ended_at', instant(clock()))
  if fault ~= '' then redis.call('HSET', job, 'error', fault) end
  if state == 'succeeded' or state == 'cancelled' then redis.call('HDEL', job, 'request') end
  redis.call('ZREM', 'k9:waiting:' .. h[1], id)
  redis.call('ZREM', 'k9:leases:' .. h[2], id)
  redis.call('ZREM', 'k9:deadlines', id)
  redis.call('HINCRBY', 'k9:ended', h[2] .. ' ' .. h[3] .. ' ' .. state, 1)
  record_event(job, id, 'end', '{"state":"' .. state .. '"' .. (fault ~= '' and ',"error":' .. fault or '') .. '}')
  redis.call('EXPIRE', job, keep)
  redis.call('EXPIRE', 'k9:relay:' .. id, keep)
  wake(job, id, 'end')
end

