-- drop: forget a dead letter: its record, its relay, its entry in the index.
-- KEYS  1 job record · 2 relay · 3 dead letters
-- ARGV  1 id · 2 generation expected
-- Gives 'dropped', 'gone' (there is no record) or 'superseded' (it was replayed). Repeating it is harmless.
local h = redis.call('HMGET', KEYS[1], 'state', 'generation')
if h[1] and (h[2] ~= ARGV[2] or (h[1] ~= 'dead' and h[1] ~= 'failed')) then return 'superseded' end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[2])
return redis.call('DEL', KEYS[1]) == 1 and 'dropped' or 'gone'
