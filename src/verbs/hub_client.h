// Asking the Hugging Face Hub about a model: its files, its configuration, the headers of its GGUF files. Metadata only:
// no weights are ever fetched, and what is fetched is bounded.
//
// Every answer is kept with its ETag (host/web_cache.h). Without a network, with HF_HUB_OFFLINE=1, or when the Hub has
// no time for us (429, 5xx), what was kept counts, and a notice says so. HF_ENDPOINT names another server, HF_TOKEN is
// sent to that server alone, and over plain HTTP only on this machine.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/hub_listing.h"
#include "host/web.h"
#include "host/web_cache.h"

namespace gpumod {

/// "ORG/NAME" or "ORG/NAME:FILE"; FILE may be a part of a file's name ("Q4_K_M"), as llama.cpp takes it.
struct HubName {
  std::string id;
  std::string file;
};
/// Errors: usage.
Result<HubName> parse_hub_name(const std::string& text);

struct HubSettings {
  std::string endpoint = "https://huggingface.co";  ///< without a slash at its end
  Secret token;
  bool offline = false;
  Duration timeout = 10s;  ///< without a byte; an answer may take four times as long in all
};
/// From HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and HF_HUB_ETAG_TIMEOUT. Errors: usage, naming the variable; never a
/// token's text.
Result<HubSettings> hub_settings();

class HubClient {
 public:
  using OpenWeb = std::function<Result<std::unique_ptr<Web>>()>;
  /// `cache`: the folder for what is kept. The web is opened when first needed.
  HubClient(HubSettings settings, std::filesystem::path cache, OpenWeb open = open_web);

  // All of these block. Errors: not_found (no such model, or not kept while offline), environment (unreachable, no
  // access, too busy), configuration (an answer that makes no sense).
  Result<HubRepository> repository(const std::string& id);
  /// A small text file of it, at the revision of the listing.
  Result<std::string> text(const HubRepository& repository, const std::string& file);
  /// Opens GGUF files of it for reading their headers, in parts.
  OpenSource headers(const HubRepository& repository);

  /// The facts of a model of that repository. `file`: which of its GGUF models, or a part of its name; "": the
  /// safetensors model, or the only GGUF model. It is set to the whole name. Errors also: usage, naming the choices.
  Result<ModelFacts> facts(const HubRepository& repository, std::string& file);

  /// What people should know although it worked: what was kept stood in for the Hub. Each once.
  const std::vector<std::string>& notices() const { return notices_; }
  const HubSettings& settings() const { return settings_; }

 private:
  friend class HubHeaderSource;
  using Judge = std::function<Result<void>(const std::string& body)>;

  Result<Web*> web();
  WebRequest request(const std::string& url) const;
  /// `what` is for sentences: "the list of files of ORG/NAME".
  Result<std::string> ask(const std::string& id, const std::string& url, const std::string& what,
                          std::size_t most_bytes, const Judge& judge);
  Error refusal(const std::string& id, const std::string& what, const WebReply& reply) const;
  std::string address(const HubRepository& repository, const std::string& file) const;
  void notice(std::string text);

  HubSettings settings_;
  WebCache cache_;
  OpenWeb open_;
  std::unique_ptr<Web> web_;
  std::vector<std::string> notices_;
};

}  // namespace gpumod
