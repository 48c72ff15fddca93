-- Requests for wrk: the lines "PATH TOKEN" of a file in turn, with any method, body size and connection handling.
--
--   wrk OPTIONS -s requests.lua URL -- FILE METHOD BODY_BYTES keep|close

function init(arguments)
    local file, method, body_bytes, connection = arguments[1], arguments[2], tonumber(arguments[3]), arguments[4]
    local body = body_bytes > 0 and string.rep("x", body_bytes) or nil
    local made = {}
    for line in io.lines(file) do
        local path, token = string.match(line, "^(%S+) (%S*)$")
        local headers = { ["Host"] = wrk.headers["Host"] }
        if token ~= "" then headers["Authorization"] = "Bearer " .. token end
        if connection == "close" then headers["Connection"] = "close" end
        made[#made + 1] = wrk.format(method, path, headers, body)
    end
    local next = 0
    if #made == 1 then
        -- Without a function `request`, wrk formats the request once, after this function, and calls no Lua code.
        local path, token = string.match(io.lines(file)(), "^(%S+) (%S*)$")
        wrk.method, wrk.path, wrk.body = method, path, body
        if token ~= "" then wrk.headers["Authorization"] = "Bearer " .. token end
        if connection == "close" then wrk.headers["Connection"] = "close" end
    else
        request = function()
            next = next % #made + 1
            return made[next]
        end
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "rejected": %d, "failed": %d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
