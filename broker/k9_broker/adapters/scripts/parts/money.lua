-- Money: a tenant's account of the day, what is set aside on it, and what is settled.

local SPENT_KEPT = 40 * 86400 -- longer than any deadline, so that late jobs find the account of their day
local USAGE_KEPT = 400 * 86400

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

