-- Counts one request against every rate limit of its route, or against none if one of them is exceeded.
-- Same arithmetic as src/gate/rate_limit.rs, in microseconds of the Redis clock, which all gates share.
-- KEYS: one bucket for each limit; its value is the time at which the bucket is empty.
-- ARGV: interval and capacity of each bucket.
-- Returns the index of the exceeded limit and the time to wait, or 0 and the level of each bucket.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local levels = {}
for i, key in ipairs(KEYS) do
  local interval, capacity = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local empty_at = tonumber(redis.call('GET', key) or 0)
  levels[i] = math.max(empty_at, now) + interval - now
  if levels[i] > capacity then
    return {i, levels[i] - capacity}
  end
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.0f', now + levels[i]), 'PX', math.ceil(levels[i] / 1000))
end
table.insert(levels, 1, 0)
return levels
