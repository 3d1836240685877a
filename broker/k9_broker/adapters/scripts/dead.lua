-- dead: a page of the dead letters, newest first. Entries whose record is gone are dropped on the way.
-- KEYS  1 dead letters
-- ARGV  1 where to go on, or '+inf' · 2 only those that ended at this instant or later, or '-inf'
--       3 entries to look at · then the fields of a record to give
-- Gives {where to go on or '' after the last, id, values, id, values, …}. Repeating it is harmless.
local entries = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local page = { #entries == 2 * tonumber(ARGV[3]) and '(' .. entries[#entries] or '' }
for i = 1, #entries, 2 do
  local id = entries[i]
  local values = redis.call('HMGET', 'k9:job:' .. id, 'state', unpack(ARGV, 4))
  local state = table.remove(values, 1)
  if state == 'dead' or state == 'failed' then
    page[#page + 1] = id
    page[#page + 1] = values
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return page
