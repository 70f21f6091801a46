;; Runs of 64-bit page-table entries over flat RAM: the loops of ../bulk.ts in WebAssembly with 128-bit SIMD.
;; Built into bulk.gen.ts by scripts/build-wasm.mjs, once with a plain and once with a shared memory (the script puts the
;; memory import in place of the line marked @memory). Addresses are bytes and need only be multiples of 8. Values come
;; as two 32-bit halves, because a 64-bit parameter would cost a BigInt on the JavaScript side.
(module
  ;; @memory

  ;; Number of empty (all zero) entries from $ptr on, at most $count.
  (func $firstUsed (export "firstUsed") (param $ptr i32) (param $count i32) (result i32)
    (local $i i32)
    (local $at i32)
    (local.set $at (local.get $ptr))
    ;; Eight entries a turn: or-ed together, one test.
    (block $tail
      (loop $turn
        (br_if $tail (i32.gt_u (i32.add (local.get $i) (i32.const 8)) (local.get $count)))
        (br_if $tail
          (v128.any_true
            (v128.or
              (v128.or (v128.load offset=0 align=8 (local.get $at)) (v128.load offset=16 align=8 (local.get $at)))
              (v128.or (v128.load offset=32 align=8 (local.get $at)) (v128.load offset=48 align=8 (local.get $at))))))
        (local.set $i (i32.add (local.get $i) (i32.const 8)))
        (local.set $at (i32.add (local.get $at) (i32.const 64)))
        (br $turn)))
    ;; The rest, and the eight among which one is used, one by one.
    (block $done
      (loop $one
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (br_if $done (i64.ne (i64.load (local.get $at)) (i64.const 0)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br $one)))
    (local.get $i))

  ;; Writes $base, $base + $step, … to $count entries; nothing is checked.
  (func $write (param $ptr i32) (param $count i32) (param $base i64) (param $step i64)
    (local $end i32)
    (local $end8 i32)
    (local $pair v128)
    (local $two v128)
    (local.set $end (i32.add (local.get $ptr) (i32.shl (local.get $count) (i32.const 3))))
    (local.set $end8
      (i32.add (local.get $ptr) (i32.shl (i32.and (local.get $count) (i32.const -8)) (i32.const 3))))
    (local.set $pair
      (i64x2.replace_lane 1 (i64x2.splat (local.get $base)) (i64.add (local.get $base) (local.get $step))))
    (local.set $two (i64x2.splat (i64.shl (local.get $step) (i64.const 1))))
    (block $tail
      (loop $turn
        (br_if $tail (i32.eq (local.get $ptr) (local.get $end8)))
        (v128.store offset=0 align=8 (local.get $ptr) (local.get $pair))
        (local.set $pair (i64x2.add (local.get $pair) (local.get $two)))
        (v128.store offset=16 align=8 (local.get $ptr) (local.get $pair))
        (local.set $pair (i64x2.add (local.get $pair) (local.get $two)))
        (v128.store offset=32 align=8 (local.get $ptr) (local.get $pair))
        (local.set $pair (i64x2.add (local.get $pair) (local.get $two)))
        (v128.store offset=48 align=8 (local.get $ptr) (local.get $pair))
        (local.set $pair (i64x2.add (local.get $pair) (local.get $two)))
        (local.set $ptr (i32.add (local.get $ptr) (i32.const 64)))
        (br $turn)))
    (local.set $base (i64x2.extract_lane 0 (local.get $pair)))
    (block $done
      (loop $one
        (br_if $done (i32.eq (local.get $ptr) (local.get $end)))
        (i64.store (local.get $ptr) (local.get $base))
        (local.set $base (i64.add (local.get $base) (local.get $step)))
        (local.set $ptr (i32.add (local.get $ptr) (i32.const 8)))
        (br $one))))

  (func $join (param $hi i32) (param $lo i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $hi)) (i64.const 32)) (i64.extend_i32_u (local.get $lo))))

  ;; Fills the empty entries in front, or with $all nothing unless all are empty; returns how many were empty.
  (func (export "fill")
    (param $ptr i32) (param $count i32) (param $lo i32) (param $hi i32) (param $stepLo i32) (param $stepHi i32)
    (param $all i32) (result i32)
    (local $free i32)
    (local.set $free (call $firstUsed (local.get $ptr) (local.get $count)))
    (if (i32.and (local.get $all) (i32.ne (local.get $free) (local.get $count)))
      (then (return (local.get $free))))
    (call $write
      (local.get $ptr) (local.get $free)
      (call $join (local.get $hi) (local.get $lo)) (call $join (local.get $stepHi) (local.get $stepLo)))
    (local.get $free))

  ;; Writes $groups values, each $perGroup times (a power of two); nothing is checked.
  (func (export "repeat")
    (param $ptr i32) (param $groups i32) (param $perGroup i32) (param $lo i32) (param $hi i32) (param $stepLo i32)
    (param $stepHi i32)
    (local $value i64)
    (local $step i64)
    (local $end i32)
    (local $groupEnd i32)
    (local $pair v128)
    (local.set $value (call $join (local.get $hi) (local.get $lo)))
    (local.set $step (call $join (local.get $stepHi) (local.get $stepLo)))
    (if (i32.lt_u (local.get $perGroup) (i32.const 2))
      (then
        (call $write (local.get $ptr) (local.get $groups) (local.get $value) (local.get $step))
        (return)))
    (local.set $end
      (i32.add (local.get $ptr)
        (i32.shl (i32.mul (local.get $groups) (local.get $perGroup)) (i32.const 3))))
    (block $done
      (loop $group
        (br_if $done (i32.eq (local.get $ptr) (local.get $end)))
        (local.set $pair (i64x2.splat (local.get $value)))
        (local.set $groupEnd (i32.add (local.get $ptr) (i32.shl (local.get $perGroup) (i32.const 3))))
        (loop $two
          (v128.store align=8 (local.get $ptr) (local.get $pair))
          (local.set $ptr (i32.add (local.get $ptr) (i32.const 16)))
          (br_if $two (i32.ne (local.get $ptr) (local.get $groupEnd))))
        (local.set $value (i64.add (local.get $value) (local.get $step)))
        (br $group))))

  ;; Clears entries from $ptr on while they are not zero and equal $value under $mask; returns how many.
  (func (export "clear")
    (param $ptr i32) (param $count i32) (param $maskLo i32) (param $maskHi i32) (param $valueLo i32)
    (param $valueHi i32) (result i32)
    (local $i i32)
    (local $mask v128)
    (local $value v128)
    (local $zero v128)
    (local $a v128)
    (local $b v128)
    (local $c v128)
    (local $d v128)
    (local $entry i64)
    (local $mask1 i64)
    (local $value1 i64)
    (local.set $mask1 (call $join (local.get $maskHi) (local.get $maskLo)))
    (local.set $value1 (call $join (local.get $valueHi) (local.get $valueLo)))
    (local.set $mask (i64x2.splat (local.get $mask1)))
    (local.set $value (i64x2.splat (local.get $value1)))
    (block $tail
      (loop $turn
        (br_if $tail (i32.gt_u (i32.add (local.get $i) (i32.const 8)) (local.get $count)))
        (local.set $a (v128.load offset=0 align=8 (local.get $ptr)))
        (local.set $b (v128.load offset=16 align=8 (local.get $ptr)))
        (local.set $c (v128.load offset=32 align=8 (local.get $ptr)))
        (local.set $d (v128.load offset=48 align=8 (local.get $ptr)))
        ;; An entry that differs from the value under the mask leaves a bit, and so does one that is zero: one test.
        (br_if $tail
          (v128.any_true
            (v128.or
              (v128.or
                (v128.or
                  (v128.xor (v128.and (local.get $a) (local.get $mask)) (local.get $value))
                  (v128.xor (v128.and (local.get $b) (local.get $mask)) (local.get $value)))
                (v128.or
                  (v128.xor (v128.and (local.get $c) (local.get $mask)) (local.get $value))
                  (v128.xor (v128.and (local.get $d) (local.get $mask)) (local.get $value))))
              (v128.or
                (v128.or
                  (i64x2.eq (local.get $a) (local.get $zero))
                  (i64x2.eq (local.get $b) (local.get $zero)))
                (v128.or
                  (i64x2.eq (local.get $c) (local.get $zero))
                  (i64x2.eq (local.get $d) (local.get $zero)))))))
        (v128.store offset=0 align=8 (local.get $ptr) (local.get $zero))
        (v128.store offset=16 align=8 (local.get $ptr) (local.get $zero))
        (v128.store offset=32 align=8 (local.get $ptr) (local.get $zero))
        (v128.store offset=48 align=8 (local.get $ptr) (local.get $zero))
        (local.set $i (i32.add (local.get $i) (i32.const 8)))
        (local.set $ptr (i32.add (local.get $ptr) (i32.const 64)))
        (br $turn)))
    (block $done
      (loop $one
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $entry (i64.load (local.get $ptr)))
        (br_if $done (i64.eqz (local.get $entry)))
        (br_if $done (i64.ne (i64.and (local.get $entry) (local.get $mask1)) (local.get $value1)))
        (i64.store (local.get $ptr) (i64.const 0))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $ptr (i32.add (local.get $ptr) (i32.const 8)))
        (br $one)))
    (local.get $i))
)
