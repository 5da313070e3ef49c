// effcc/faults.h: what an entry point knows of run-time checks (checks.h): the record of a call's faults, and their text.
//
//   missed m;                                  what one thread of one kernel has noted: its fault of the lowest number
//   note(m, number, value, size)               the check of that number failed for a value
//   rarely(condition)                          the condition, which hardly ever holds
//   checks c; c.add(m)                         to the record, which all threads of a call share; a kernel's parameter
//   describe(...)                              a fault as text
#pragma once

#include "effcc/types.h"

namespace effcc {

struct missed {
    static constexpr i64 nothing = 0x7fffffffffffffff;
    i64 number = nothing, value = 0, size = 0;
};

EFFCC_INLINE bool rarely(bool condition) { return __builtin_expect(condition, 0); }

EFFCC_INLINE void note(missed& m, i64 number, i64 value, i64 size) {
    if (number < m.number) m = {number, value, size};
}

// A call's faults. Positions are those in the program's table of checks, which is in the model's order.
class fault_record {
  public:
    __attribute__((noinline, cold)) void add(i64 position, i64 value, i64 size) {
        while (__atomic_exchange_n(&taken_, true, __ATOMIC_ACQUIRE)) {
        }
        if (position < position_) position_ = position, value_ = value, size_ = size;
        __atomic_store_n(&taken_, false, __ATOMIC_RELEASE);
    }

    // The first fault's position, or -1; written to `fault`, if there is one, with the value and the size beside it.
    i64 first(i64* fault) const {
        if (position_ == missed::nothing) return -1;
        if (fault) fault[0] = position_, fault[1] = value_, fault[2] = size_;
        return position_;
    }

  private:
    i64 position_ = missed::nothing, value_ = 0, size_ = 0;
    bool taken_ = false;
};

// A record, and where a launch's checks stand in the program's table.
struct checks {
    fault_record& record;
    const i64* positions;

    void add(const missed& m) const {
        if (rarely(m.number != missed::nothing)) record.add(positions[m.number], m.value, m.size);
    }
};

// What a check guards: the op (or what a requirement says) and its place in the user's model, and the indexed dimension.
struct check_place {
    enum kind { index = 1, index_from_either_end = 2, divisor = 3, requirement = 4 } what;
    const char* op;
    int dimension;

    // What an entry point returns for it.
    int code() const { return what == requirement ? 3 : what == divisor ? 2 : 1; }
};

// The text of a fault, cut to `room` bytes with the closing zero; returns its code.
static inline int describe(const check_place& place, const i64* fault, char* text, i64 room) {
    const bool back = place.what == check_place::index_from_either_end && fault[1] < 0;
    if (place.what == check_place::requirement)
        __builtin_snprintf(text, static_cast<unsigned long>(room), "%s", place.op);
    else if (place.what == check_place::divisor)
        __builtin_snprintf(text, static_cast<unsigned long>(room), "%s: an integer is divided by zero", place.op);
    else
        __builtin_snprintf(text, static_cast<unsigned long>(room),
                           "%s: index %lld is out of bounds for dimension %d with size %lld", place.op,
                           static_cast<long long>(back ? fault[1] - fault[2] : fault[1]), place.dimension,
                           static_cast<long long>(fault[2]));
    return place.code();
}

}  // namespace effcc
