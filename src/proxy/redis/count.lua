-- Counts one request of a caller for each of its limits, or for none if one of them does not let it pass: the arithmetic
-- of src/gate/limit.rs, in microseconds of the one clock that all gates share. KEYS: a bucket for each limit, whose value
-- is the time at which it is empty. ARGV: interval and room of each.
-- Gives the number of the limit that does not let it pass and the time to wait, or 0 and how much is in each bucket.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local held = {}
for i, key in ipairs(KEYS) do
  local interval, room = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local empty = tonumber(redis.call('GET', key) or 0)
  held[i] = math.max(empty, now) + interval - now
  if held[i] > room then
    return {i, held[i] - room}
  end
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.0f', now + held[i]), 'PX', math.ceil(held[i] / 1000))
end
table.insert(held, 1, 0)
return held
