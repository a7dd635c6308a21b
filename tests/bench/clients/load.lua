-- What wrk sends. Contract: arguments after `--` are
--   KIND      `sign` (POST a signature of a signer nobody has been before) or `get`
--   RUN       a word that no other run uses: it is part of every signer's address
--   RATE      requests a second of all threads together; 0: as fast as answers come
--   THREADS   how many threads share the rate
--   ACCEPT    value of the header `accept`, `-` for none
--   HEADER    one further header as `name: value`, `-` for none
--   AGAIN     the part of signatures, 0 to 1, whose signer has signed before in this run (drawn among all of them)
--   PATHS...  addresses; with more than one, they are drawn by a power law (Zipf, exponent 1.1)
-- At the end one line of JSON follows the word RESULT. CPU seconds are of the whole wrk process.
--
-- Paced (RATE > 0), every thread has its timetable: one slot each THREADS/RATE seconds. A connection that has become
-- free takes the next slot and waits for it; if all connections are busy, slots pass and are taken late. `behind_ms`
-- is how late the latest was taken: while that is small, latencies leave nothing out (no coordinated omission).

local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } moment; int clock_gettime(int clock, moment *into); ]]
local moment = ffi.new("moment")
local function now()
  ffi.C.clock_gettime(1, moment) -- CLOCK_MONOTONIC
  return tonumber(moment.s) + tonumber(moment.ns) / 1e9
end

local threads = {}
function setup(thread)
  thread:set("id", #threads + 1)
  table.insert(threads, thread)
end

behind = 0.0 -- global: `done` reads it from each thread
asked = 0

local COUNTRIES = { "DE", "NL", "BE", "AT", "FR", "DK", "SE", "PL", "IT", "GB" }
local kind, run, again, interval, next_slot
local signers = 0
local heads, shares = {}, {}

function init(arguments)
  kind, run = arguments[1], arguments[2]
  local rate, sharing = tonumber(arguments[3]), tonumber(arguments[4])
  again = tonumber(arguments[7])
  interval = rate > 0 and sharing / rate or 0
  local common = "host: " .. wrk.host .. "\r\n"
  if arguments[5] ~= "-" then common = common .. "accept: " .. arguments[5] .. "\r\n" end
  if arguments[6] ~= "-" then common = common .. arguments[6] .. "\r\n" end
  local sum = 0
  for number = 8, #arguments do
    if kind == "sign" then
      heads[#heads + 1] = "POST " .. arguments[number] .. " HTTP/1.1\r\n" .. common
        .. "content-type: application/json\r\ncontent-length: "
    else
      heads[#heads + 1] = "GET " .. arguments[number] .. " HTTP/1.1\r\n" .. common .. "\r\n"
    end
    sum = sum + 1 / ((#heads) ^ 1.1)
    shares[#heads] = sum
  end
  math.randomseed(id * 7919)
  if interval == 0 then delay = nil end
end

local function drawn()
  if #heads == 1 then return heads[1] end
  local point, low, high = math.random() * shares[#shares], 1, #shares
  while low < high do
    local middle = math.floor((low + high) / 2)
    if shares[middle] < point then low = middle + 1 else high = middle end
  end
  return heads[low]
end

function request()
  asked = asked + 1
  if kind ~= "sign" then return drawn() end
  local signer
  if again > 0 and signers > 0 and math.random() < again then
    signer = math.random(signers)
  else
    signers = signers + 1
    signer = signers
  end
  local body = '{"email":"maya.' .. run .. "." .. id .. "x" .. signer
    .. '@lakepost.example","name":"Maya Lindqvist","country":"' .. COUNTRIES[signer % 10 + 1]
    .. '","postcode":"1011 AB","consent":true}'
  return drawn() .. #body .. "\r\n\r\n" .. body
end

function delay()
  local moment_now = now()
  if next_slot == nil then next_slot = moment_now + interval * (id - 1) / math.max(1, id) end
  local slot = next_slot
  next_slot = slot + interval
  if slot <= moment_now then
    behind = math.max(behind, moment_now - slot)
    return 0
  end
  return math.floor((slot - moment_now) * 1000)
end

function done(summary, latency, _)
  local late = 0
  for _, thread in ipairs(threads) do late = math.max(late, thread:get("behind")) end
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"microseconds":%d,"bytes":%d,"p50":%d,"p90":%d,"p99":%d,"p999":%d,"most":%d,"mean":%.1f,'
      .. '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"behind_ms":%.1f,"cpu_seconds":%.3f}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency:percentile(99.9), latency.max, latency.mean,
    e.connect, e.read, e.write, e.status, e.timeout, late * 1000, os.clock()))
end
