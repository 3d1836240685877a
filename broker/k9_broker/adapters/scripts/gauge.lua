-- gauge: the queues of some candidates as a tenant's next job would find them, for dry runs.
-- Stands on queues.
-- KEYS  none
-- ARGV  1 tenant · then per candidate: backend, queue
-- Gives per candidate: waiting, ahead, own, in flight, 1 if a mark was passed before, of patient callers.
local gauges = {}
for i = 2, #ARGV, 2 do
  local found = gauge(ARGV[i + 1], ARGV[i], ARGV[1])
  gauges[#gauges + 1] = { found.waiting, found.ahead, found.own, found.in_flight, found.saturated and 1 or 0,
    found.patient }
end
return gauges
