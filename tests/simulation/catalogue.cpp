#include "catalogue.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace gpumod::simulation {

namespace {

constexpr std::array<std::int64_t, 6> sizes_mib{8192, 12282, 16376, 24564, 40960, 81920};

Bytes some_claim(Random& random, const Catalogue& machine) {
  if (machine.gpus.empty()) return random.mib(1000, 20000);
  const auto& gpu = machine.gpus[static_cast<std::size_t>(random.below(static_cast<int>(machine.gpus.size())))];
  const auto room = gpu.total - gpu.reserved - machine.knowledge.settings.vram_margin;
  switch (random.below(20)) {
    case 0: return room;                             // barely fits
    case 1: return room + Bytes(1);                  // barely does not
    case 2: return gpu.total + random.mib(1, 8000);  // never fits
    case 3:
    case 4: return Bytes(room.count() * random.between(50, 95) / 100);
    case 5: return Bytes(room.count() / 2);  // two of them fit exactly
    default: return Bytes(room.count() * random.between(3, 35) / 100);
  }
}

Service plain(int index, Random& random) {
  Service service;
  service.id = fmt::format("s{}", index);
  service.name = service.id;
  service.port = static_cast<std::uint16_t>(7000 + index);
  static constexpr std::array timeouts{20s, 60s, 60s, 300s};
  service.startup_timeout = timeouts[static_cast<std::size_t>(random.below(4))];
  service.options = CommandOptions{{"/bin/server"}, {}, {}};
  return service;
}

}  // namespace

Catalogue::Catalogue(Random& random) {
  const int roll = random.below(100);
  const int count = roll < 5 ? 0 : roll < 55 ? 1 : roll < 88 ? 2 : 3;
  const auto first = sizes_mib[static_cast<std::size_t>(random.below(6))];
  for (int i = 0; i < count; ++i) {
    const auto size = random.percent(60) ? first : sizes_mib[static_cast<std::size_t>(random.below(6))];
    gpus.push_back({Bytes::mib(size), random.percent(50) ? Bytes::mib(300) : Bytes()});
  }
  figures = !random.percent(8);
  unified = random.percent(3);
  auto& settings = knowledge.settings;
  settings.vram_margin = random.percent(70) ? Bytes::mib(512) : random.percent(50) ? Bytes() : Bytes::mib(1024);
  const int boot = random.below(10);
  settings.boot = boot < 6 ? BootPolicy::goal : boot < 8 ? BootPolicy::blank : BootPolicy::nothing;
  settings.release_timeout = random.percent(70) ? Duration(120s) : Duration(30s);

  std::map<ServiceId, Service> made;
  const auto place = [&](Service& service) {
    if (count > 1 && (!service.unit.empty() || random.percent(35)))
      service.gpu.devices.push_back(std::to_string(random.below(count)));
  };
  // In one world of four much happens at once: room for all, sleepers and routers above all.
  const bool busy = count > 0 && random.percent(25);
  const int wanted = busy ? 7 : static_cast<int>(random.between(2, 6));
  int index = 0;
  while (index < wanted) {
    const int kind = random.below(busy ? 50 : 100);
    if (kind < 22) {  // a router and its models
      const auto name = fmt::format("r{}", index);
      const int models = static_cast<int>(random.between(1, 3));
      const auto port = static_cast<std::uint16_t>(7000 + index);
      const bool adopted = random.percent(20);
      std::vector<std::string> devices;
      if (count > 1 && (adopted || random.percent(50))) devices.push_back(std::to_string(random.below(count)));
      for (int m = 0; m < models; ++m) {
        Service service = plain(index++, random);
        service.port = port;
        service.engine = EngineKind::llamacpp;
        LlamaOptions llama;
        llama.models_dir = "/models";
        service.options = llama;
        service.router = name;
        if (adopted) service.unit = fmt::format("my-router-{}.service", name);
        service.gpu.devices = devices;
        service.sleep = SleepAbility::router;
        if (!random.percent(12)) service.vram = busy ? random.mib(300, 1500) : some_claim(random, *this);
        made[service.id] = service;
      }
      continue;
    }
    Service service = plain(index++, random);
    if (random.percent(18)) service.unit = fmt::format("my-{}.service", service.id);
    if (kind < 50) {  // vLLM
      service.engine = EngineKind::vllm;
      VllmOptions vllm;
      if (busy || !random.percent(15))
        vllm.gpu_memory_utilization = static_cast<double>(busy ? random.between(12, 25) : random.between(10, 97)) / 100;
      if (count > 1 && random.percent(20) && service.unit.empty()) vllm.tensor_parallel_size = 2;
      service.options = vllm;
      service.sleep = !busy && random.percent(30) ? SleepAbility::none
                      : random.percent(60)        ? SleepAbility::level1
                                                  : SleepAbility::level2;
      if (!vllm.tensor_parallel_size || *vllm.tensor_parallel_size == 1) place(service);
    } else if (kind < 60) {  // a llama-server with one model
      service.engine = EngineKind::llamacpp;
      service.options = LlamaOptions{};
      if (!random.percent(25)) service.vram = some_claim(random, *this);
      place(service);
    } else if (kind < 72) {  // on the CPU
      service.vram = Bytes(0);
    } else {
      if (!random.percent(8)) service.vram = some_claim(random, *this);
      place(service);
    }
    if (random.percent(14) && index > 1) {  // two that cannot run together
      const auto other = made.find(fmt::format("s{}", random.below(index - 1)));
      if (other != made.end() && other->second.router.empty()) service.port = other->second.port;
    }
    if (random.percent(4) && service.engine == EngineKind::command) service.port = 0;
    made[service.id] = service;
  }
  knowledge.services = std::move(made);

  for (const auto& [id, service] : knowledge.services) {
    const int own = static_cast<int>(services.size());
    services.push_back(&service);
    need_permille.push_back(service.vllm() ? 1000 : static_cast<int>(random.between(600, 1000)));
    unknown_need.push_back(random.mib(200, 6000));
    int unit = unit_named(service.unit_name());
    if (unit < 0) {
      unit = static_cast<int>(units.size());
      UnitSpec spec;
      spec.name = service.unit_name();
      spec.tag = service.router.empty() ? id : service.router;
      spec.adopted = !service.unit.empty();
      spec.router = service.in_router();
      spec.restarts = spec.adopted && random.percent(60);
      units.push_back(std::move(spec));
    }
    units[static_cast<std::size_t>(unit)].members.push_back(own);
    unit_of.push_back(unit);
  }
  if (random.percent(15)) units.push_back({"gpumod-old.service", "old", {}, false, false, false, false});
  if (random.percent(10)) {
    units.push_back({"gpumod-typo.service", "typo", {}, false, false, false, true});
    knowledge.broken["typo"] = "services/typo.yaml:3";
  }

  const int mode_count = static_cast<int>(random.between(2, 4));
  for (int m = 0; m < mode_count; ++m) {
    std::vector<int> mode;
    for (int s = 0; s < static_cast<int>(services.size()); ++s) {
      if (!random.percent(45)) continue;
      const auto* service = services[static_cast<std::size_t>(s)];
      const bool collides = std::any_of(mode.begin(), mode.end(), [&](int other) {
        const auto* first_there = services[static_cast<std::size_t>(other)];
        return service->port != 0 && first_there->port == service->port &&
               first_there->unit_name() != service->unit_name();
      });
      if (!collides) mode.push_back(s);
    }
    modes.push_back(std::move(mode));
  }
}

int Catalogue::unit_named(const std::string& name) const {
  for (std::size_t i = 0; i < units.size(); ++i)
    if (units[i].name == name) return static_cast<int>(i);
  return -1;
}

int Catalogue::service_named(const std::string& id) const {
  for (std::size_t i = 0; i < services.size(); ++i)
    if (services[i]->id == id) return static_cast<int>(i);
  return -1;
}

std::optional<Bytes> Catalogue::claim(int service, int gpu) const {
  const auto& file = *services[static_cast<std::size_t>(service)];
  if (file.vram && *file.vram == Bytes(0)) return Bytes(0);
  if (file.engine != EngineKind::vllm) return file.vram;
  const double share = file.vllm()->gpu_memory_utilization.value_or(0.9);
  const auto total = unified ? Bytes() : gpus[static_cast<std::size_t>(gpu)].total;
  return Bytes(static_cast<std::int64_t>(std::ceil(static_cast<double>(total.count()) * share)));
}

Bytes Catalogue::need(int service, int gpu) const {
  const auto known = claim(service, gpu);
  if (!known) return unknown_need[static_cast<std::size_t>(service)];
  return Bytes(known->count() / 1000 * need_permille[static_cast<std::size_t>(service)]);
}

bool Catalogue::uses_gpu(int service) const {
  return services[static_cast<std::size_t>(service)]->vram != Bytes(0);
}

bool Catalogue::may_use(int service, int gpu) const {
  const auto& devices = services[static_cast<std::size_t>(service)]->gpu.devices;
  return devices.empty() || std::find(devices.begin(), devices.end(), std::to_string(gpu)) != devices.end();
}

int Catalogue::spread(int service) const {
  const auto& file = *services[static_cast<std::size_t>(service)];
  if (!file.gpu.any()) return static_cast<int>(file.gpu.devices.size());
  return file.vllm() ? std::max(1, file.vllm()->tensor_parallel_size.value_or(1)) : 1;
}

std::vector<int> Catalogue::home(int unit) const {
  for (const int member : units[static_cast<std::size_t>(unit)].members)
    if (uses_gpu(member))
      for (int gpu = 0; gpu < static_cast<int>(gpus.size()); ++gpu)
        if (may_use(member, gpu)) return {gpu};
  return {};
}

}  // namespace gpumod::simulation
