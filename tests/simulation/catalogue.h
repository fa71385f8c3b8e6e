// A random machine and a random catalogue for it: GPUs, services that fit, barely fit or do not fit, routers with
// several models, people's own units, modes.
#pragma once

#include <string>
#include <vector>

#include "random.h"
#include "switching/plan.h"

namespace gpumod::simulation {

inline constexpr int most_gpus = 3;

struct GpuSpec {
  Bytes total;
  Bytes reserved;  ///< the driver's own
};

struct UnitSpec {
  std::string name;
  std::string tag;
  std::vector<int> members;  ///< services of the catalogue; none: an orphan, or of a broken file
  bool adopted = false;
  bool router = false;
  bool restarts = false;  ///< people's own Restart=always
  bool broken = false;    ///< its service file is
};

struct Catalogue {
  explicit Catalogue(Random& random);

  std::vector<GpuSpec> gpus;
  bool figures = true;   ///< NVML says what each process holds
  bool unified = false;  ///< NVML does not say what is free
  Knowledge knowledge;
  std::vector<const Service*> services;  ///< by index, in the order of their ids
  std::vector<int> unit_of;              ///< by service
  std::vector<int> need_permille;        ///< of its claim that a service really takes, by service
  std::vector<Bytes> unknown_need;       ///< of one whose claim nobody declared
  std::vector<UnitSpec> units;
  std::vector<std::vector<int>> modes;

  int unit_named(const std::string& name) const;
  int service_named(const std::string& id) const;
  /// What a service takes on a GPU at its peak, worked out from its file alone; unset where the file does not say.
  std::optional<Bytes> claim(int service, int gpu) const;
  /// What it really takes there.
  Bytes need(int service, int gpu) const;
  bool uses_gpu(int service) const;
  bool may_use(int service, int gpu) const;
  int spread(int service) const;          ///< over how many GPUs it runs
  std::vector<int> home(int unit) const;  ///< where people's own unit puts it
};

}  // namespace gpumod::simulation
