-- One request over and over, each thread to its own node; the result as one line of JSON.
-- Arguments after `--`: method, path, body, URL per thread.

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

function init(args)
   local host, port = args[3 + number]:match("^http://([^:/]+):(%d+)")
   for _, address in ipairs(wrk.lookup(host, port)) do
      if wrk.connect(address) then
         wrk.thread.addr = address
         break
      end
   end
   wrk.headers["Host"] = host .. ":" .. port
   local body = args[3] ~= "" and args[3] or nil
   if body then
      wrk.headers["Content-Type"] = "application/json"
   end
   prepared = wrk.format(args[1], args[2], nil, body)
end

function request()
   return prepared
end

function done(summary, latency, requests)
   local errors = summary.errors
   local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
   io.write(string.format(
      'RESULT {"ok": %d, "errors": %d, "seconds": %.6f, "latency_ms": {"50": %.3f, "99": %.3f, "max": %.3f}}\n',
      summary.requests - errors.status, failed, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
