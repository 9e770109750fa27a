-- Gives each request of wrk an id in its path, and writes down what was asked and what was answered, in files of each
-- thread: wrk -s wrk.lua URL -- FOLDER. wrk asks the next only after an answer, and says the id of the answer, not of what
-- was asked.
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(arguments)
  count = 0
  local function file(name)
    local opened = assert(io.open(arguments[1] .. "/" .. name .. number, "w"))
    opened:setvbuf("no")
    return opened
  end
  asked, answered = file("asked"), file("answered")
end

function request()
  count = count + 1
  local path = "/small/wrk-" .. number .. "-" .. count
  asked:write(path .. " GET 0 0 failed\n")
  return wrk.format("GET", path)
end

function response(status, headers, body)
  answered:write("/small/" .. (headers["X-Answers"] or "none") .. " GET " .. status .. " " .. #body .. " whole\n")
end
