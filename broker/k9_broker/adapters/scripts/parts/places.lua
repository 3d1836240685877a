-- Places: which of a decision's candidates may take a job now.
-- After queues.

local RESUME = 0.75 -- `saturation.RESUME`
local SHARE = 3 -- the factor of `saturation.share`

-- The candidates in ARGV from `at` on, as `redis_ledger._words` writes them.
local WORDS = 13
local function candidate(at)
  local function number(offset) return tonumber(ARGV[at + offset]) end
  return { backend = ARGV[at], kind = ARGV[at + 1], queue = ARGV[at + 2], mark = number(3), reason = ARGV[at + 4],
    model = ARGV[at + 5], cost = number(6), cost_text = ARGV[at + 6], slots = number(7), service = number(8),
    least_wait = number(9), busy = number(10), overflow_at = number(11), overflow_wait = number(12) }
end

-- `saturation.wait_behind`, the middle of it, and not less than what nobody begins before.
local function wait_behind(ahead, found, place)
  local slots = math.max(1, place.slots)
  local ends = math.max(0, ahead + 1 - math.max(0, slots - found.in_flight))
  return math.max(ends * place.service / slots, place.least_wait)
end

-- Whether jobs should rather go elsewhere, and which mark says so. It is remembered until the queue is
-- well below its marks again. A batch has no mark on the depth.
local function saturation(place, found, priority)
  local at = priority == 'interactive' and place.overflow_at
  if not (at or place.overflow_wait) then return nil end
  local factor = found.saturated and RESUME or 1
  local deep = at and found.waiting >= factor * at
  local slow = place.overflow_wait and wait_behind(found.waiting, found, place) >= factor * place.overflow_wait
  if (deep or slow) and not found.saturated then redis.call('HSET', 'k9:saturated', place.queue, '1') end
  if not (deep or slow) and found.saturated then redis.call('HDEL', 'k9:saturated', place.queue) end
  -- Whose turn comes soon all the same, because others fill the queue, may stay; and who begins at once.
  local wait = wait_behind(found.ahead, found, place)
  if wait <= 0 then return nil end
  if deep and found.ahead >= RESUME * at then return 'overflow:depth' end
  if slow and wait >= RESUME * place.overflow_wait then return 'overflow:wait' end
end

-- Why a job may not go to a place now, nil when it may; then whether it still might if there is no
-- better one, and its wait. `asked` has privacy, tenant, whether others share the queues (`shared`), the
-- priority, whether its caller is `patient`, the seconds `left` until its deadline, whether nothing past a
-- mark will do (`strict`), and in `money` the nano-dollars its tenant may still spend, nil without a budget.
-- Patient callers count for themselves alone, so that they shut nobody out who would not wait so long.
-- `strategy/admission.py` is the same rule.
local function obstacle(asked, place)
  if asked.privacy == 'local-only' and (place.kind ~= 'local' or string.sub(place.queue, 1, 9) ~= 'k9.local.') then
    return 'privacy:local-only', false
  end
  if asked.money and not place.cost then return 'budget:unknown-price', false end
  if asked.money and place.cost > 0 and place.cost > asked.money then return 'budget:exhausted', false end
  local found = gauge(place.queue, place.backend, asked.tenant)
  local wait = wait_behind(found.ahead, found, place)
  local counted = asked.patient and found.waiting or found.waiting - found.patient
  local full = counted >= place.mark
    or (asked.shared and wait > 0 and found.own >= SHARE * math.max(0, place.mark - counted))
  if asked.left and wait + place.busy > asked.left then
    return 'overflow:deadline', not full and (asked.patient or asked.priority == 'batch' or wait <= 0), wait
  end
  if full then return 'overflow:depth', false, wait end
  if asked.priority == 'interactive' or place.kind == 'local' then
    return saturation(place, found, asked.priority), true, wait
  end
  return nil, true, wait
end

-- The first of `count` candidates from ARGV[at] on that a job may go to; if there is none, the one with
-- the shortest wait of those that are only past a mark. Then the reason, those that were passed over
-- as lines of the record's `skipped`, what kept it from all (room, money, privacy), and the shortest wait.
-- A batch job whose queue here is full or slow waits for it rather than go to the cloud; not so one that
-- cannot stay where it is.
local function choose(asked, at, count)
  local passed, kept, stays, best, shortest = {}, {}, false, nil, nil
  for i = 1, count do
    local place = candidate(at + (i - 1) * WORDS)
    local why, might, wait = obstacle(asked, place)
    if not why and stays and place.kind == 'cloud' then why, might, wait = 'batch:waits', false, nil end
    if wait then shortest = math.min(shortest or wait, wait) end
    if not why then
      return place, passed[1] and passed[1].why or place.reason, passed
    end
    passed[i] = { line = place.backend .. ': ' .. why .. '\n', why = why }
    kept[why] = true
    local here = asked.priority == 'batch' and place.kind == 'local' and not asked.strict
    if here and (why == 'overflow:depth' or why == 'overflow:wait') then stays = true end
    if might and not asked.strict and (not best or wait < best.wait) then best = { at = i, place = place, wait = wait } end
  end
  if best then
    local why = best.at == 1 and best.place.reason or passed[1].why
    table.remove(passed, best.at)
    return best.place, why, passed
  end
  return nil, kept, passed, shortest
end

local function lines_of(passed)
  local lines = {}
  for i, one in ipairs(passed) do lines[i] = one.line end
  return table.concat(lines)
end

