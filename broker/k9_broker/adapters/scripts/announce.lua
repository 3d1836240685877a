-- announce: what a worker serves, and until when to believe it, by Redis' own clock.
-- KEYS  1 workers · 2 the worker's announcement
-- ARGV  1 node · 2 announcement · 3 seconds it is believed · 4 seconds it is remembered
-- Gives nothing. Repeating it is harmless.
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[4])
redis.call('ZADD', KEYS[1], instant(clock() + tonumber(ARGV[3])), ARGV[1])
