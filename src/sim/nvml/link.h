// The library's line to the broker (sim/protocol.h), in plain C++: it is loaded into other people's programs and brings
// nothing with it but the C++ library.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gpumod::sim::nvml {

struct Gpu {
  std::uint64_t total = 0;
  std::uint64_t reserved = 0;
  std::uint64_t used = 0;  ///< without what is reserved
  std::uint64_t free = 0;
  bool lost = false;
  int parent = -1;  ///< of a MIG device
  unsigned instance = 0;
  std::string uuid;
  std::string name;
};

struct Process {
  unsigned gpu = 0;
  std::string list;
  unsigned pid = 0;
  std::uint64_t used = 0;
  std::string command;
};

/// Everything NVML shows at one moment.
struct World {
  std::string driver;
  std::vector<Gpu> gpus;
  std::vector<Process> processes;
  std::map<std::string, std::string> faults;

  bool has(const std::string& fault) const { return faults.contains(fault); }
  long long number(const std::string& fault, long long otherwise) const;
};

/// One connection. When an exchange has failed it is closed and stays so: a driver that died does not come back by
/// itself.
class Link {
 public:
  Link() = default;
  ~Link() { close(); }
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  /// Connects to the broker at $GPUMOD_SIM_GPU. False: there is none.
  bool open();
  void close();
  bool look(World& world);
  /// One request with an answer of one line, both without line end.
  bool ask(const std::string& request, std::string& answer);

 private:
  bool exchange(const std::string& request, const std::string& last_line, std::string& answer);
  int socket_ = -1;
};

}  // namespace gpumod::sim::nvml
