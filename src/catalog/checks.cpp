#include "catalog/checks.h"

#include <functional>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace {

class ServiceChecks {
 public:
  ServiceChecks(std::vector<ServiceDraft>& drafts, std::vector<Problem>& problems)
      : drafts_(drafts), problems_(problems) {}

  void run() {
    for (auto& draft : drafts_) {
      if (!draft.ok) continue;
      unique_id(draft);
      if (draft.ok) same_router(draft);
      if (draft.ok) unique_unit(draft);
      if (!draft.ok) continue;
      ids_.emplace(draft.service.id, &draft);
      units_.emplace(draft.service.unit_name(), &draft);
      if (!draft.service.router.empty()) routers_.emplace(draft.service.router, &draft);
    }
  }

 private:
  void refuse(ServiceDraft& draft, const std::string& key, std::string message, std::string hint) {
    const auto& node = draft.at(key);
    problems_.push_back(
        {Severity::error, {draft.service.source.file, node.line, node.column}, std::move(message), std::move(hint)});
    draft.ok = false;
  }

  void unique_id(ServiceDraft& draft) {
    const auto found = ids_.find(draft.service.id);
    if (found == ids_.end()) return;
    const auto& first = *found->second;
    const auto& node = first.at("id");
    refuse(draft, "id", fmt::format("the service '{}' is already defined", draft.service.id),
           fmt::format("It stands at {}, and that one is used. Rename or remove one of them.",
                       to_string(SourceLocation{first.service.source.file, node.line, node.column})));
  }

  void same_router(ServiceDraft& draft) {
    const auto& service = draft.service;
    if (service.router.empty()) return;
    const auto found = routers_.find(service.router);
    if (found == routers_.end()) return;
    const auto& first = found->second->service;
    const auto differ = [&](const char* key, bool same) {
      if (same || !draft.ok) return;
      refuse(
          draft, key,
          fmt::format("{} differs from that of '{}', and both are in the router '{}'", key, first.id, service.router),
          fmt::format("One llama-server serves them all: write what {} says, or name another router.",
                      to_string(first.source)));
    };
    differ("port", first.port == service.port);
    differ("host", first.host == service.host);
    differ("models_dir", first.llama()->models_dir == service.llama()->models_dir);
    differ("models_preset", first.llama()->models_preset == service.llama()->models_preset);
    differ("binary", first.binary == service.binary);
    differ("unit", first.unit == service.unit);
    differ("gpu", first.gpu.devices == service.gpu.devices);
  }

  void unique_unit(ServiceDraft& draft) {
    const auto& service = draft.service;
    const auto found = units_.find(service.unit_name());
    if (found == units_.end()) return;
    const auto& first = found->second->service;
    if (!service.router.empty() && first.router == service.router) return;
    refuse(draft, service.unit.empty() ? "id" : "unit",
           fmt::format("the unit {} already runs the service '{}'", service.unit_name(), first.id),
           fmt::format("See {}. A unit runs one service, or those of one router.", to_string(first.source)));
  }

  std::vector<ServiceDraft>& drafts_;
  std::vector<Problem>& problems_;
  std::map<std::string, const ServiceDraft*> ids_;
  std::map<std::string, const ServiceDraft*> units_;
  std::map<std::string, const ServiceDraft*> routers_;
};

/// Two listeners that exclude each other: the same address, or one of them is every address.
bool hosts_collide(const std::string& a, const std::string& b) {
  const auto everywhere = [](const std::string& host) { return host == "0.0.0.0" || host == "::" || host == "*"; };
  const auto plain = [](const std::string& host) { return host == "localhost" ? std::string("127.0.0.1") : host; };
  return everywhere(a) || everywhere(b) || plain(a) == plain(b);
}

}  // namespace

void check_services(std::vector<ServiceDraft>& drafts, std::vector<Problem>& problems) {
  ServiceChecks(drafts, problems).run();
}

bool check_mode(const ModeDraft& draft, const std::map<ServiceId, Service>& services,
                const std::map<ServiceId, SourceLocation>& broken, std::vector<Problem>& problems) {
  bool good = draft.ok;
  const auto& mode = draft.mode;
  const auto error = [&](const YamlNode& at, std::string message, std::string hint) {
    problems.push_back({Severity::error, {mode.source.file, at.line, at.column}, std::move(message), std::move(hint)});
    good = false;
  };
  std::vector<std::string> known;
  for (const auto& [id, service] : services)
    known.push_back(id);

  std::vector<const Service*> earlier;
  std::set<ServiceId> seen;
  for (std::size_t i = 0; i < mode.services.size(); ++i) {
    const auto& id = mode.services[i];
    const auto& at = *draft.elements[i];
    if (!is_valid_id(id) || !seen.insert(id).second) continue;  // said when the file was read
    const auto found = services.find(id);
    if (found == services.end()) {
      if (const auto fault = broken.find(id); fault != broken.end())
        error(at, fmt::format("the service '{}' cannot be used: its file is broken", id),
              fmt::format("Mend it first: {}.", to_string(fault->second)));
      else
        error(at, fmt::format("there is no service '{}'", id), did_you_mean(id, known));
      continue;
    }
    const Service& service = found->second;
    for (const Service* other : earlier) {
      const bool one_router = !service.router.empty() && service.router == other->router;
      if (service.port == 0 || service.port != other->port || one_router || !hosts_collide(service.host, other->host))
        continue;
      error(at, fmt::format("'{}' and '{}' both listen on port {}", other->id, service.id, service.port),
            "They cannot run together. Give one another port; two models of one llama-server say the same `router:`.");
    }
    earlier.push_back(&service);
  }
  return good;
}

}  // namespace gpumod
