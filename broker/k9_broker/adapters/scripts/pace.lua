-- pace: the turns of calls towards one backend, whose limits all its workers share.
-- KEYS  1 the backend's pace
-- ARGV  1 what · 2 the present instant, '' for Redis' own · 3 4 requests, tokens a minute as configured, or ''
--       take:   5 tokens · 6 patience in seconds · 7-10 the turn of one who asks again, or nothing
--       settle: 5 tokens to give back; negative: to charge
--       learn:  5-7 requests a minute, remaining, seconds until all are back · 8-10 the same of tokens; or ''
--       hold:   5 seconds
-- Gives for take {seconds to wait, turn (born, in requests, in tokens, when due)}, the turn only where one
-- was taken: the wait is not longer than the patience. For the others nothing. redis_pacer.py says why.
local SHARE = 0.97 -- of the limit is used
local BURST = 0.01 -- of a minute's worth may go at once after a pause
local LATE = 1 -- seconds after which a turn that nobody came for is lost
local LOW = 0.1 -- of the limit: with less remaining, others use it too
local SLOWEST = 0.1 -- of the usual rate, however little remains
local TOLD_LIVES = 300
local LONGEST_RESET = 120
local KEPT = 600

local key = KEYS[1]
local now = tonumber(ARGV[2]) or clock()
local head = redis.call('HMGET', key, 'born', 'at', 'held')
local born = head[1] or instant(now)
local at = tonumber(head[2] or '') or now -- the instant all numbers are of
local held = tonumber(head[3] or '0') -- until when nobody begins a call

-- One limit. `asked`: all that was ever asked for. `allowed`: what may have gone of it by now. `left`: what
-- the backend has left, as far as is known; told: its limit, until when that is believed, when it is full.
local function read(name, whole, configured)
  local h = redis.call('HMGET', key, name .. ':asked', name .. ':allowed', name .. ':left', name .. ':full',
    name .. ':told', name .. ':until')
  local one = { name = name, whole = whole, configured = tonumber(configured) }
  one.asked, one.allowed, one.left = tonumber(h[1] or '0'), tonumber(h[2] or ''), tonumber(h[3] or '')
  one.full, one.told, one.believed = tonumber(h[4] or '0'), tonumber(h[5] or ''), tonumber(h[6] or '0')
  return one
end

local function bound(one)
  if one.told and now >= one.believed then one.told = nil end
  one.limit = math.min(one.configured or math.huge, one.told or math.huge)
  if one.limit == math.huge then
    one.limit, one.left = nil, nil
    -- Whoever waits for the end of a hold is behind the limit, should one be told meanwhile.
    one.allowed = now < held and (one.allowed or one.asked) or nil
    return
  end
  one.burst = one.whole + one.limit * BURST
  one.allowed = math.min(one.allowed or math.huge, one.asked + one.burst)
  one.left = math.min(one.left or math.huge, one.limit)
  local usual = one.limit / 60 * SHARE
  local lasts = one.full > now and one.left / ((one.full - now) * usual) or 0
  one.rate = usual * math.max(SLOWEST, math.min(1, math.max(one.left / (LOW * one.limit), lasts)))
end

local function pass(one)
  bound(one)
  if not one.limit or now <= at then return end
  local gone = math.min(one.allowed, one.asked)
  local free = math.max(0, now - math.max(at, held))
  one.allowed = math.min(one.allowed + one.rate * free, one.asked + one.burst)
  gone = math.min(one.allowed, one.asked) - gone
  local refill = one.limit / 60
  if one.full > at then refill = math.min(refill, (one.limit - one.left) / (one.full - at)) end
  one.left = math.max(0, math.min(one.limit, one.left + refill * (now - at) - gone))
  if one.full > at and one.full <= now then one.left = one.limit end
  bound(one)
end

local function wait(one, turn)
  return one.limit and math.max(0, (turn - one.allowed) / one.rate) or 0
end

local limits = { read('requests', 1, ARGV[3]), read('tokens', 0, ARGV[4]) }
for _, one in ipairs(limits) do pass(one) end
at = math.max(at, now)

local acts, kept, gives = {}, KEPT, nil

function acts.take()
  local costs, patience, turns = { 1, tonumber(ARGV[5]) }, tonumber(ARGV[6]), {}
  local again = ARGV[7] == born and now <= tonumber(ARGV[10]) + LATE
  local seconds = 0
  for i, one in ipairs(limits) do
    turns[i] = again and tonumber(ARGV[7 + i]) or one.asked + math.min(costs[i], one.burst or math.huge)
    seconds = math.max(seconds, wait(one, turns[i]))
  end
  seconds = seconds + math.max(0, held - now)
  if seconds < 0.001 then seconds = 0 end
  if seconds > patience then
    gives = { instant(seconds) }
    return
  end
  if not again then
    for i, one in ipairs(limits) do one.asked = one.asked + costs[i] end
  end
  kept = KEPT + math.ceil(seconds)
  gives = { instant(seconds), born, instant(turns[1]), instant(turns[2]), instant(now + seconds) }
end

function acts.settle()
  local one, back = limits[2], tonumber(ARGV[5])
  if not one.limit then return end
  one.allowed, one.left = one.allowed + back, math.max(0, one.left + back)
end

function acts.learn()
  for i, one in ipairs(limits) do
    local told, remaining, reset = tonumber(ARGV[2 + 3 * i]), tonumber(ARGV[3 + 3 * i]), tonumber(ARGV[4 + 3 * i])
    if told and told <= (one.told or math.huge) then
      one.told, one.believed = told, now + TOLD_LIVES
    end
    bound(one)
    if one.limit and remaining then
      one.left = math.min(one.left, remaining)
      one.allowed = math.min(one.allowed, one.asked + remaining)
    end
    if one.limit and reset then one.full = math.max(one.full, now + math.min(reset, LONGEST_RESET)) end
  end
end

function acts.hold()
  held = math.max(held, now + tonumber(ARGV[5]))
  for _, one in ipairs(limits) do
    if one.limit then one.allowed = math.min(one.allowed, one.asked) end
  end
end

acts[ARGV[1]]()
redis.call('HSET', key, 'born', born, 'at', instant(at), 'held', instant(held))
for _, one in ipairs(limits) do
  bound(one)
  local function text(number) return number and instant(number) or '' end
  redis.call('HSET', key, one.name .. ':asked', text(one.asked), one.name .. ':allowed', text(one.allowed),
    one.name .. ':left', text(one.left), one.name .. ':full', text(one.full), one.name .. ':told', text(one.told),
    one.name .. ':until', text(one.believed))
end
redis.call('EXPIRE', key, math.max(kept, redis.call('TTL', key)))
return gives
