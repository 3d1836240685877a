-- Queues: the place of a job in one, how tenants share it, and how full it is.

local TURNS_KEPT = 2 * 86400
local LEARN = 0.05 -- weight of the newest job in how far expectations are off
local MOST_STRETCH = 100

-- The number in a message's delivery tag: the place in its queue. nil for a message that is not ours.
local function number_of(message)
  return message and tonumber(string.match(message, '"delivery_tag": ?"[^"]*:(%-?%d+)"'))
end

-- Lists are read from their end (BRPOP), so numbers fall from left to right. A message finds its place from
-- the end by doubling steps: who has little in a queue comes near its end, however deep it is. There it is
-- cheaper to take out those that go first, and put them back, than to have the list searched for one.
local NEAR = 1000
local function put_in_list(queue, number, message)
  local function after(at) -- whether the message at this place comes after the new one
    local there = number_of(redis.call('LINDEX', queue, at))
    return there and there > number
  end
  if not after(0) then return redis.call('LPUSH', queue, message) end
  if after(-1) then return redis.call('RPUSH', queue, message) end
  local length, first, later = redis.call('LLEN', queue), 1, 2 -- counted from the end; `first` go before it
  while later < length and not after(-later) do first, later = later, 2 * later end
  later = math.min(later, length)
  while later - first > 1 do
    local middle = math.floor((later + first) / 2)
    if after(-middle) then later = middle else first = middle end
  end
  if first > NEAR or 16 * first > length then -- that search costs little where the list is short
    return redis.call('LINSERT', queue, 'AFTER', redis.call('LINDEX', queue, -later), message)
  end
  local taken, back = redis.call('RPOP', queue, first), { message }
  for i = first, 1, -1 do back[#back + 1] = taken[i] end
  redis.call('RPUSH', queue, unpack(back))
end

-- Tenants share a queue by start-time fair queueing (Goyal, Vin and Cheng 1996): a job's number is when
-- its tenant's turn comes, in microseconds of a slot's time, and each job puts its tenant's next turn
-- back by what it is expected to take, over the tenant's weight. `now` is the turn of the job that a
-- worker took last; who had nothing waiting begins there, so turns cannot be saved up.
local function turns_of(queue) return 'k9:turns:' .. queue end

local function own_turn(queue, tenant)
  return tonumber(redis.call('HGET', turns_of(queue), 'of ' .. tenant) or '0')
end

local function turn_of(queue, tenant)
  return math.max(tonumber(redis.call('HGET', turns_of(queue), 'now') or '0'), own_turn(queue, tenant))
end

-- Put a tenant's next turn off, or forward again for work that was not done.
local function put_off(queue, tenant, by)
  local turns = turns_of(queue)
  redis.call('HSET', turns, 'of ' .. tenant, string.format('%.0f', own_turn(queue, tenant) + by))
  redis.call('EXPIRE', turns, TURNS_KEPT)
end

local PATIENT = ':patient' -- no tenant is called so
local function queued_of(queue, tenant) return 'k9:queued:' .. queue .. ':' .. tenant end

-- No tenant's name begins with a colon.
local function parked_in(queue) return 'k9:parked::' .. queue end

-- A job's message is used up before it may run: it keeps its turn, but nobody waits behind it.
local function park(queue, id)
  local waiting, parked = 'k9:waiting:' .. queue, parked_in(queue)
  local number = redis.call('ZSCORE', waiting, id)
  if number then
    redis.call('ZREM', waiting, id)
    redis.call('ZADD', parked, number, id)
    redis.call('EXPIRE', parked, TURNS_KEPT)
  end
end

-- A job leaves its place in a queue, with its message or parked. Gives its number; nil when it has none.
local function step_out(queue, id, tenant)
  local index, parked = 'k9:waiting:' .. queue, parked_in(queue)
  local number = redis.call('ZSCORE', index, id)
  if number then
    redis.call('ZREM', index, id)
    return tonumber(number)
  end
  number = redis.call('ZSCORE', parked, id)
  if number then
    redis.call('ZREM', parked, id)
    redis.call('ZREM', 'k9:parked:' .. tenant, id)
    return tonumber(number)
  end
end

-- Put a message for the job in a queue: 'turn' (where its tenant's turn is), 'front', or 'again' (where
-- it was). Index, list and what the tenant has there change together, so that the reaper can tell a
-- lost message from a waiting one.
local function enqueue(queue, id, place, tenant, head, middle, tail)
  local index = 'k9:waiting:' .. queue
  local number = place == 'again' and step_out(queue, id, tenant) or turn_of(queue, tenant)
  if place == 'front' then
    local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
    if first[2] then number = math.min(number, tonumber(first[2]) - 1) end
  end
  local text = string.format('%.0f', number)
  redis.call('ZADD', index, text, id)
  redis.call('SADD', queued_of(queue, tenant), id)
  put_in_list(queue, number, head .. queue .. middle .. text .. tail)
end

-- How many times longer than expected the jobs of a queue have lately taken. If they were charged too
-- little when they come and the rest when they have ended, who has many waiting would have the better of it.
local function stretch_of(queue)
  local h = redis.call('HMGET', turns_of(queue), 'took', 'expected')
  if not h[1] then return 1 end
  return math.max(1 / MOST_STRETCH, math.min(tonumber(h[1]) / tonumber(h[2]), MOST_STRETCH))
end

local function learn_stretch(queue, expected, took)
  local turns = turns_of(queue)
  local h = redis.call('HMGET', turns, 'took', 'expected')
  local before, wanted = tonumber(h[1] or expected), tonumber(h[2] or expected)
  redis.call('HSET', turns, 'took', before + LEARN * (took - before), 'expected', wanted + LEARN * (expected - wanted))
end

-- A job comes into a queue where its tenant's turn is, or at the front, and puts the next turn off.
-- `busy`: the seconds it is expected to hold a slot, which it does not longer than until its deadline.
local function take_turn(job, queue, id, tenant, busy, head, middle, tail, front)
  enqueue(queue, id, front and 'front' or 'turn', tenant, head, middle, tail)
  local h = redis.call('HMGET', job, 'weight', 'deadline_at')
  local seconds = math.min(busy * stretch_of(queue), tonumber(h[2]) - clock())
  local charge = math.max(1, math.floor(seconds * 1000000 / tonumber(h[1] or '1')))
  redis.call('HSET', job, 'charge', string.format('%.0f', charge), 'busy', busy)
  put_off(queue, tenant, turn_of(queue, tenant) - own_turn(queue, tenant) + charge)
end

-- A job waits no more in a queue. `begun`: because a worker took it, so that the queue's time goes on;
-- else its tenant has its turn back.
local function leave_queue(job, queue, id, tenant, begun)
  local number = step_out(queue, id, tenant)
  if not number then return end
  redis.call('SREM', queued_of(queue, tenant), id)
  redis.call('SREM', queued_of(queue, PATIENT), id)
  if begun then
    local turns = turns_of(queue)
    if number > tonumber(redis.call('HGET', turns, 'now') or '0') then
      redis.call('HSET', turns, 'now', string.format('%.0f', number))
      redis.call('EXPIRE', turns, TURNS_KEPT)
    end
  else
    put_off(queue, tenant, -tonumber(redis.call('HGET', job, 'charge') or '0'))
  end
end

-- A queue as one tenant's next job finds it: jobs waiting, those of them it would come after, its own, those
-- of patient callers, jobs running at the backend, and whether a mark was passed before. Parked jobs fill it,
-- but are waited for by nobody.
local function gauge(queue, backend, tenant)
  local index = 'k9:waiting:' .. queue
  local found = {
    waiting = redis.call('ZCARD', index),
    own = redis.call('SCARD', queued_of(queue, tenant)),
    patient = redis.call('SCARD', queued_of(queue, PATIENT)),
    in_flight = redis.call('ZCOUNT', 'k9:leases:' .. backend, instant(clock()), '+inf'),
    saturated = redis.call('HGET', 'k9:saturated', queue) == '1',
  }
  found.ahead, found.waiting = found.waiting, found.waiting + redis.call('ZCARD', parked_in(queue))
  if found.own < found.waiting then
    found.ahead = redis.call('ZCOUNT', index, '-inf', string.format('%.0f', turn_of(queue, tenant)))
  end
  local before, batch = string.gsub(queue, '%.batch$', '.interactive')
  if batch == 1 then found.ahead = found.ahead + redis.call('ZCARD', 'k9:waiting:' .. before) end
  return found
end

-- A string as it stands inside a JSON string.
local function in_json(text)
  return string.sub(cjson.encode(text), 2, -2)
end

