-- ahead: where several jobs wait, and how many jobs of their backend begin before each, as they stand.
-- Stands on queues.
-- KEYS  per job: job record
-- ARGV  per job: id
-- Gives per job its backend and the number, which is -1 when the job does not wait.
local found = {}
for i = 1, #KEYS do
  local h = redis.call('HMGET', KEYS[i], 'state', 'queue', 'backend')
  local place = -1
  if h[1] == 'queued' then
    local index = 'k9:waiting:' .. h[2]
    local parked = redis.call('ZSCORE', parked_in(h[2]), ARGV[i])
    place = parked and redis.call('ZCOUNT', index, '-inf', '(' .. parked) or redis.call('ZRANK', index, ARGV[i]) or -1
  end
  if place >= 0 then
    local before, batch = string.gsub(h[2], '%.batch$', '.interactive')
    if batch == 1 then place = place + redis.call('ZCARD', 'k9:waiting:' .. before) end
  end
  found[i] = { h[3] or '', place }
end
return found
