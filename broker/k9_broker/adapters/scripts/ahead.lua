-- ahead: where several jobs wait, and how many jobs of their backend begin before each, as they stand.
-- KEYS  per job: job record
-- ARGV  per job: id
-- Gives per job its backend and the number, which is -1 when the job does not wait.
local found = {}
for i = 1, #KEYS do
  local h = redis.call('HMGET', KEYS[i], 'state', 'queue', 'backend')
  local place = h[1] == 'queued' and redis.call('ZRANK', 'k9:waiting:' .. h[2], ARGV[i]) or -1
  if place >= 0 then
    local before, batch = string.gsub(h[2], '%.batch$', '.interactive')
    if batch == 1 then place = place + redis.call('ZCARD', 'k9:waiting:' .. before) end
  end
  found[i] = { h[3] or '', place }
end
return found
