-- SPDX-License-Identifier: MIT
-- shared_dict.lua - does on a lua_shared_dict what bench/peers/interpreter.c asks for
--
-- A key is cut out anew each time, as it comes with a request. The loops without the dictionary look the key up in a table
-- of two others instead: the compiler leaves out a string that nobody needs, and the lookup in an empty table.

local KEY_BYTES = 24
local FOR_EVER_MS = 1e9

local byte, sub = string.byte, string.sub
local dict = ngx.shared.cache
local others = {one = true, two = true}
local keys, value_bytes

local function key_of(number)
	return string.format("user:%010u:profile_", number)
end

-- All are different, wherever the hash of strings looks at them, and the first and the last byte are the same.
local function value_of(number)
	local last = string.char(number % 256)
	local digits = string.format("%010u", number)
	local many = string.rep(digits, value_bytes / #digits + 1)
	return last .. sub(many, 1, value_bytes - 2) .. last
end

local operations = {}

function operations.fill(_, count)
	local wrong = 0
	for number = 0, count - 1 do
		if not dict:set(key_of(number), value_of(number)) then
			wrong = wrong + 1
		end
	end
	return wrong
end

function operations.get(first, count)
	local wrong = 0
	for at = first * KEY_BYTES + 1, (first + count) * KEY_BYTES, KEY_BYTES do
		local value = dict:get(sub(keys, at, at + KEY_BYTES - 1))
		if not value or #value ~= value_bytes or byte(value) ~= byte(value, -1) then
			wrong = wrong + 1
		end
	end
	return wrong
end

operations["get-loop"] = function(first, count)
	local wrong = 0
	for at = first * KEY_BYTES + 1, (first + count) * KEY_BYTES, KEY_BYTES do
		local value = sub(keys, at, at + KEY_BYTES - 1)
		if others[value] or #value ~= KEY_BYTES or byte(value) == byte(value, -1) then
			wrong = wrong + 1
		end
	end
	return wrong
end

function operations.set(first, count)
	local wrong = 0
	local value = value_of(first)
	for at = first * KEY_BYTES + 1, (first + count) * KEY_BYTES, KEY_BYTES do
		if not dict:set(sub(keys, at, at + KEY_BYTES - 1), value) then
			wrong = wrong + 1
		end
	end
	return wrong
end

operations["set-loop"] = function(first, count)
	local wrong = 0
	for at = first * KEY_BYTES + 1, (first + count) * KEY_BYTES, KEY_BYTES do
		if others[sub(keys, at, at + KEY_BYTES - 1)] then
			wrong = wrong + 1
		end
	end
	return wrong
end

local function answer(asker)
	while true do
		local line = asker:receive()
		if not line then
			return asker:close()
		end
		local what, first, count = line:match("(%S+) (%d+) (%d+)")
		asker:send(operations[what](tonumber(first), tonumber(count)) .. "\n")
	end
end

local peer = {}

function peer.read(path, size)
	local file = assert(io.open(path))
	keys = file:read("*a")
	value_bytes = size
	file:close()
end

function peer.serve(path)
	ngx.timer.at(0, function()
		while true do
			local asker = ngx.socket.tcp()
			asker:settimeouts(FOR_EVER_MS, FOR_EVER_MS, FOR_EVER_MS)
			-- A master that was killed stops no worker: nobody to connect to is the sign.
			if not asker:connect(path) then
				os.exit(0)
			end
			answer(asker)
		end
	end)
end

return peer
