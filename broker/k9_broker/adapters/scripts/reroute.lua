-- reroute: move a job to the first of some places that has room, under its next generation.
-- Stands on queues, money, places, ends.
-- KEYS  1 job record
-- ARGV  1 id · 2 generation expected · 3 token of its claim, or '' for a job that waits
--       4 why it leaves, a line of the record's `skipped` · 5 backend that failed it, or ''
--       6 upstream calls it has caused · 7 backend it shall come back to, or ''
--       8-11 message up to the model, up to the queue, middle, tail
--       12 seconds in which a place must be done with it, or '' · 13 number of places, then the places
-- Gives the backend it went to, '' when none has room, or 'superseded' and a blank. Every older message or
--       claim is superseded.
local MOVED_KEPT = 86400
local job, id, token = KEYS[1], ARGV[1], ARGV[3]
local h = redis.call('HMGET', job, 'state', 'generation', 'token', 'backend', 'queue', 'skipped', 'privacy', 'tenant',
  'budget', 'cost', 'account', 'tried', 'relayed', 'home', 'priority', 'started_at')
if h[2] ~= ARGV[2] then return 'superseded ' end
if token == '' and h[1] ~= 'queued' then return 'superseded ' end
if token ~= '' and (h[1] ~= 'running' or h[3] ~= token) then return 'superseded ' end

local aside, money, tenant = tonumber(h[10] or ''), nil, h[8]
if h[9] then
  money = tonumber(h[9]) - spent_today(tenant)
  if h[11] == 'k9:spent:' .. tenant .. ':' .. today() then money = money + (aside or 0) end
end

-- Money set aside for one place becomes money set aside for another.
local function set_aside(cost)
  local account = h[11] and redis.call('EXISTS', h[11]) == 1 and h[11]
  if account then
    redis.call('INCRBY', account, string.format('%.0f', (cost or 0) - (aside or 0)))
  elseif cost and cost > 0 then
    account = reserve(tenant, cost)
  end
  if account and cost then redis.call('HSET', job, 'account', account) else redis.call('HDEL', job, 'account') end
end

local asked = { privacy = h[7], tenant = tenant, money = money, priority = h[15], left = tonumber(ARGV[12]), strict = true }
local place = choose(asked, 14, tonumber(ARGV[13]))
if not place then return '' end
set_aside(place.cost)
if token ~= '' then redis.call('HINCRBY', job, 'attempts', -1) end -- its worker is not to blame
local generation = redis.call('HINCRBY', job, 'generation', 1)
leave_slot(job, h[4], id, tenant)
leave_queue(job, h[5], id, tenant, false)
if token ~= '' then settle_turn(job, h[5], tenant, 'rerouted', h[16]) end
redis.call('HDEL', job, 'token', 'worker')
if token ~= '' then redis.call('HDEL', job, 'started_at') end -- there it has not run
local tried = h[12] or ''
if ARGV[5] ~= '' then tried = tried .. ' ' .. ARGV[5] end
redis.call('HSET', job, 'state', 'queued', 'backend', place.backend, 'kind', place.kind, 'queue', place.queue,
  'model', place.model, 'reason', place.reason, 'cost', place.cost_text, 'skipped', (h[6] or '') .. ARGV[4] .. '\n',
  'tried', tried, 'calls', ARGV[6], 'home', ARGV[7], 'relayed', 0)
if h[14] and h[14] ~= '' then redis.call('ZREM', 'k9:moved:' .. h[14], id) end
if ARGV[7] ~= '' then
  redis.call('ZADD', 'k9:moved:' .. ARGV[7], instant(clock()), id)
  redis.call('EXPIRE', 'k9:moved:' .. ARGV[7], MOVED_KEPT)
end
-- One that had its turn keeps it; those that wait keep their order, and pass nobody.
take_turn(job, place.queue, id, tenant, place.busy, ARGV[8] .. in_json(place.model) .. ARGV[9], ARGV[10], ARGV[11],
  token ~= '')
redis.call('HINCRBY', 'k9:rerouted', h[4] .. ' ' .. place.backend .. ' ' .. place.reason, 1)
if h[13] and h[13] ~= '0' then
  record_event(job, id, 'restart', '{"generation":' .. generation .. '}')
  wake(job, id, 'event')
end
return place.backend
