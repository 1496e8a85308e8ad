<?php
// SPDX-License-Identifier: MIT
// apcu.php SOCKET KEYS VALUE_BYTES PROCS - does on APCu what bench/peers/interpreter.c asks for
//
// A key is cut out anew each time, as it comes with a request: a string that is kept would remember its hash. The loops
// without APCu call a function of PHP that does as good as nothing instead.

const KEY_BYTES = 24;

function key_of(int $number): string
{
	return sprintf('user:%010u:profile_', $number);
}

// All are different, and the first and the last byte are the same.
function value_of(int $number, int $value_bytes): string
{
	$end = chr($number & 255);
	$digits = str_repeat(sprintf('%010u', $number), intdiv($value_bytes, 10) + 1);
	return $end . substr($digits, 0, $value_bytes - 2) . $end;
}

function fill(int $count, int $value_bytes): int
{
	for ($i = $wrong = 0; $i < $count; $i++) {
		$wrong += !apcu_store(key_of($i), value_of($i, $value_bytes));
	}
	return $wrong;
}

function get(string $keys, int $at, int $end, int $value_bytes): int
{
	for ($wrong = 0; $at < $end; $at += KEY_BYTES) {
		$value = apcu_fetch(substr($keys, $at, KEY_BYTES));
		if ($value === false || strlen($value) !== $value_bytes || $value[0] !== $value[-1]) {
			$wrong++;
		}
	}
	return $wrong;
}

function get_loop(string $keys, int $at, int $end): int
{
	for ($wrong = 0; $at < $end; $at += KEY_BYTES) {
		$value = trim(substr($keys, $at, KEY_BYTES));
		if ($value === false || strlen($value) !== KEY_BYTES || $value[0] === $value[-1]) {
			$wrong++;
		}
	}
	return $wrong;
}

function set(string $keys, int $at, int $end, string $value): int
{
	for ($wrong = 0; $at < $end; $at += KEY_BYTES) {
		if (!apcu_store(substr($keys, $at, KEY_BYTES), $value)) {
			$wrong++;
		}
	}
	return $wrong;
}

function set_loop(string $keys, int $at, int $end, string $value): int
{
	for ($wrong = 0; $at < $end; $at += KEY_BYTES) {
		if (str_starts_with(substr($keys, $at, KEY_BYTES), $value)) {
			$wrong++;
		}
	}
	return $wrong;
}

function answer(string $line, string $keys, int $value_bytes): int
{
	[$what, $first, $count] = explode(' ', $line);
	$at = (int)$first * KEY_BYTES;
	$end = $at + (int)$count * KEY_BYTES;
	$value = value_of((int)$first, $value_bytes);
	return match ($what) {
		'fill' => fill((int)$count, $value_bytes),
		'get' => get($keys, $at, $end, $value_bytes),
		'get-loop' => get_loop($keys, $at, $end),
		'set' => set($keys, $at, $end, $value),
		'set-loop' => set_loop($keys, $at, $end, $value),
	};
}

function serve(string $socket, string $keys, int $value_bytes): void
{
	while ($asker = @stream_socket_client("unix://$socket")) {
		stream_set_timeout($asker, 1 << 30);
		while (($line = fgets($asker)) !== false) {
			fwrite($asker, answer($line, $keys, $value_bytes) . "\n");
		}
		fclose($asker);
	}
}

if (!function_exists('apcu_fetch') || !function_exists('pcntl_fork')) {
	exit(1);
}
[, $socket, $keys_file, $value_bytes, $procs] = $argv;
$keys = file_get_contents($keys_file);
for ($i = 0; $i < (int)$procs; $i++) {
	if (pcntl_fork() === 0) {
		serve($socket, $keys, (int)$value_bytes);
		exit(0);
	}
}
while (pcntl_wait($status) > 0) {
}
