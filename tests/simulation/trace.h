// The timeline of a run, for people: written only when somebody will read it.
#pragma once

#include <cstdio>
#include <string>

#include <fmt/format.h>

#include "agenda.h"

namespace gpumod::simulation {

class Trace {
 public:
  explicit Trace(const Agenda& agenda, bool on) : agenda_(agenda), on_(on) {}
  bool on() const { return on_; }
  template <typename... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) {
    if (!on_) return;
    fmt::print("{:>12.3f}  ", std::chrono::duration<double>(agenda_.now.time_since_epoch()).count());
    fmt::print(format, std::forward<Args>(args)...);
    std::fputc('\n', stdout);
  }

 private:
  const Agenda& agenda_;
  bool on_;
};

}  // namespace gpumod::simulation
