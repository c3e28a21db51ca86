-- Decides operations on the buckets and leases of one group, in their order; the arithmetic of app/ratelimit/__init__.py.
--
-- KEYS: buckets, each a string that holds when it is full, and sets of leases, scored with when they end.
-- ARGV: the time, or '' for this server's own; the time after which nothing must happen any more, or '';
--       a JSON array of the words of all operations, one behind the other, where a key is its place in KEYS:
--         take   number of charges, for each: bucket, cost, depth; set of leases or 0, count, duration, id
--         give   number of charges, for each: bucket, cost
--         end    set of leases, id
-- Returns: the time; for each `take` the level of each of its buckets before it, and 1 if it was crowded, else 0.
--          Nothing if it was too late.
-- All times are microseconds.

local KEPT_LONGER = 10000 -- milliseconds, so that a clock that is put right does not empty a bucket

local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or time[1] * 1000000 + time[2]
if now > (tonumber(ARGV[2]) or now) then
  return {}
end

local full_at, changed = {}, {}
local answer = {now}
local words, position = cjson.decode(ARGV[3]), 0

local function word()
  position = position + 1
  return words[position]
end

local function exactly(value) -- tostring() would round to 14 digits
  return string.format('%.0f', value)
end

local function read(bucket)
  local at = full_at[bucket] or tonumber(redis.call('GET', KEYS[bucket]) or '') or 0
  full_at[bucket] = at
  return at
end

local function write(bucket, at)
  full_at[bucket], changed[bucket] = at, true
end

local function is_crowded(leases, count)
  if redis.call('ZCARD', KEYS[leases]) < count then
    return false
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[leases], '-inf', exactly(now))
  return redis.call('ZCARD', KEYS[leases]) >= count
end

local function start(leases, duration, id)
  redis.call('ZADD', KEYS[leases], exactly(now + duration), id)
  local kept = math.ceil(duration / 1000) + KEPT_LONGER
  if redis.call('PTTL', KEYS[leases]) < kept then -- a longer one may be there
    redis.call('PEXPIRE', KEYS[leases], exactly(kept))
  end
end

local operations = {}

function operations.take()
  local allowed, after = true, {}
  for _ = 1, word() do
    local bucket, cost, depth = word(), word(), word()
    local at = math.min(math.max(read(bucket), now), now + depth)
    if at < read(bucket) then
      write(bucket, at) -- even where nothing is taken: what is told of the wait is reckoned from here
    end
    allowed = allowed and at + cost - now <= depth
    after[bucket] = at + cost
    answer[#answer + 1] = at
  end
  local leases, count, duration, id = word(), word(), word(), word()
  local crowded = leases > 0 and is_crowded(leases, count)
  answer[#answer + 1] = crowded and 1 or 0
  if allowed and not crowded then
    for bucket, at in pairs(after) do
      write(bucket, at)
    end
    if leases > 0 then
      start(leases, duration, id)
    end
  end
end

function operations.give()
  for _ = 1, word() do
    local bucket, cost = word(), word()
    write(bucket, read(bucket) - cost)
  end
end

operations['end'] = function()
  redis.call('ZREM', KEYS[word()], word())
end

while position < #words do
  operations[word()]()
end

for bucket in pairs(changed) do
  local at = full_at[bucket]
  if at > 0 then
    local away = math.max(at - now, 0)
    redis.call('SET', KEYS[bucket], exactly(at), 'PX', exactly(math.ceil(away / 1000) + KEPT_LONGER))
  else
    redis.call('DEL', KEYS[bucket])
  end
end

return answer
