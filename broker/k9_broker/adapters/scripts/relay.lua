-- relay: append chunks to the relays of several running jobs and wake whoever waits, once each.
-- KEYS  per job: job record
-- ARGV  per job: id, token, number of its first chunk, how many, the chunks
-- Gives the tokens of claims that no longer hold. Chunks already written are not written twice.
local lost, wakes, at = {}, {}, 1
for i = 1, #KEYS do
  local id, token, first, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local h = redis.call('HMGET', KEYS[i], 'state', 'token', 'relayed', 'waiters')
  if h[1] == 'running' and h[2] == token then
    local relay = 'k9:relay:' .. id
    local seen = tonumber(h[3])
    for n = 1, count do
      if first + n - 1 >= seen then
        redis.call('XADD', relay, '*', 'kind', 'chunk', 'data', ARGV[at + 3 + n])
      end
    end
    redis.call('HSET', KEYS[i], 'relayed', math.max(seen, first + count))
    for waiter in string.gmatch(h[4] or '', '%S+') do
      wakes[waiter] = (wakes[waiter] or 'event') .. ' ' .. id
    end
  else
    lost[#lost + 1] = token
  end
  at = at + 4 + count
end
for waiter, message in pairs(wakes) do
  redis.call('PUBLISH', 'k9:wake:' .. waiter, message)
end
return lost
