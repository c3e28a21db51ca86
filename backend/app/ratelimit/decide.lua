-- Decides operations on the buckets and slots of one group, in their order; the arithmetic of app/ratelimit/__init__.py.
--
-- KEYS: buckets, each a string with its theoretical arrival time (TAT), and sorted sets of the ids of held slots, scored
--       with the time until which they are held.
-- ARGV: the time, or '' for the clock of this server; the deadline after which the script does nothing, or '';
--       a JSON array of the arguments of all operations, one after the other, where a key is its index in KEYS:
--         take       number of buckets, for each: bucket, increment, burst tolerance;
--                    number of slots, and unless it is 0: set of held slots, slots of the subject, duration, ids
--         give_back  number of buckets, for each: bucket, increment
--         release    set of held slots, number of slots, ids
-- Returns: the time; for each `take` the clamped TAT of each of its buckets before it, and 1 if there was no free slot,
--          else 0 (fewer than the take asks for is none). An empty array after the deadline.
-- All times are microseconds.

local KEPT_LONGER = 10000 -- milliseconds, so that setting a wrong clock right does not empty a bucket

local time = redis.call('TIME')
local now = tonumber(ARGV[1]) or time[1] * 1000000 + time[2]
if now > (tonumber(ARGV[2]) or now) then
  return {}
end

local tats, changed = {}, {}
local reply = {now}
local arguments, position = cjson.decode(ARGV[3]), 0

local function next_argument()
  position = position + 1
  return arguments[position]
end

local function next_arguments(count)
  local found = {}
  for index = 1, count do
    found[index] = next_argument()
  end
  return found
end

local function digits(value) -- tostring() would round to 14 digits
  return string.format('%.0f', value)
end

local function read_tat(bucket)
  local tat = tats[bucket] or tonumber(redis.call('GET', KEYS[bucket]) or '') or 0
  tats[bucket] = tat
  return tat
end

local function write_tat(bucket, tat)
  tats[bucket], changed[bucket] = tat, true
end

local function has_no_free_slot(held, slots, count)
  if redis.call('ZCARD', KEYS[held]) + count <= slots then
    return false
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[held], '-inf', digits(now))
  return redis.call('ZCARD', KEYS[held]) + count > slots
end

local function hold(held, duration, ids)
  for _, id in ipairs(ids) do
    redis.call('ZADD', KEYS[held], digits(now + duration), id)
  end
  local kept = math.ceil(duration / 1000) + KEPT_LONGER
  if redis.call('PTTL', KEYS[held]) < kept then -- the set may have a slot that is held for longer
    redis.call('PEXPIRE', KEYS[held], digits(kept))
  end
end

local operations = {}

function operations.take()
  local allowed, new_tats = true, {}
  for _ = 1, next_argument() do
    local bucket, increment, burst_tolerance = next_argument(), next_argument(), next_argument()
    local tat = math.min(math.max(read_tat(bucket), now), now + burst_tolerance)
    if tat < read_tat(bucket) then
      write_tat(bucket, tat) -- even if nothing is taken: the wait in the decision counts from the clamped TAT
    end
    allowed = allowed and tat + increment - now <= burst_tolerance
    new_tats[bucket] = tat + increment
    reply[#reply + 1] = tat
  end
  local held, slots, duration, ids
  local count = next_argument()
  if count > 0 then
    held, slots, duration, ids = next_argument(), next_argument(), next_argument(), next_arguments(count)
  end
  local no_free_slot = held ~= nil and has_no_free_slot(held, slots, count)
  reply[#reply + 1] = no_free_slot and 1 or 0
  if allowed and not no_free_slot then
    for bucket, tat in pairs(new_tats) do
      write_tat(bucket, tat)
    end
    if held then
      hold(held, duration, ids)
    end
  end
end

function operations.give_back()
  for _ = 1, next_argument() do
    local bucket, increment = next_argument(), next_argument()
    write_tat(bucket, read_tat(bucket) - increment)
  end
end

function operations.release()
  local held = KEYS[next_argument()]
  for _, id in ipairs(next_arguments(next_argument())) do
    redis.call('ZREM', held, id)
  end
end

while position < #arguments do
  operations[next_argument()]()
end

for bucket in pairs(changed) do
  local tat = tats[bucket]
  if tat > 0 then
    local ahead = math.max(tat - now, 0)
    redis.call('SET', KEYS[bucket], digits(tat), 'PX', digits(math.ceil(ahead / 1000) + KEPT_LONGER))
  else
    redis.call('DEL', KEYS[bucket])
  end
end

return reply
