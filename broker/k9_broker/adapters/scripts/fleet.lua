-- fleet: every worker that announced itself lately, and the depths of every backend they name.
-- Stands on queues.
-- KEYS  1 workers · 2 what `auto` embeds with
-- Gives {now, workers, depths, embedding model or ''}: per worker its expiry and announcement; per backend `kind.name`, in-flight,
--       then waiting, those of them that are parked, and the oldest job's age in seconds (interactive, then batch), then 1 if
--       a mark was passed.
local now = clock()
local workers, depths, seen = {}, {}, {}
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #nodes, 2 do
  local text = redis.call('GET', 'k9:worker:' .. nodes[i])
  if text then
    workers[#workers + 1] = nodes[i + 1]
    workers[#workers + 1] = text
    -- Not decoded: an announcement may have the cards of hundreds of models. These two come before them.
    local backend = string.match(text, '"backend":%s*"([^"]+)"') or '?'
    local kind = string.match(text, '"kind":%s*"([^"]+)"') or '?'
    local place = kind .. '.' .. backend -- a backend may have moved: its old queues are not its depth
    if not seen[place] then
      seen[place] = true
      depths[#depths + 1] = place
      depths[#depths + 1] = redis.call('ZCOUNT', 'k9:leases:' .. backend, instant(now), '+inf')
      for _, priority in ipairs({ 'interactive', 'batch' }) do
        local queue = 'k9.' .. place .. '.' .. priority
        local index, parked = 'k9:waiting:' .. queue, redis.call('ZCARD', parked_in(queue))
        depths[#depths + 1] = redis.call('ZCARD', index) + parked
        depths[#depths + 1] = parked
        local first = redis.call('ZRANGE', index, 0, 0)[1]
        local created = first and redis.call('HGET', 'k9:job:' .. first, 'created_at')
        depths[#depths + 1] = instant(created and math.max(0, now - tonumber(created)) or 0)
      end
      local queue = 'k9.' .. place .. '.interactive'
      depths[#depths + 1] = redis.call('HGET', 'k9:saturated', queue) == '1' and 1 or 0
    end
  else
    redis.call('ZREM', KEYS[1], nodes[i])
  end
end
return { instant(now), workers, depths, redis.call('GET', KEYS[2]) or '' }
