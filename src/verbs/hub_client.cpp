#include "verbs/hub_client.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <arpa/inet.h>
#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/paths.h"
#include "base/text.h"
#include "engines/hub.h"
#include "formats/gguf_facts.h"

namespace gpumod {

namespace {

constexpr std::size_t listing_limit = 16 << 20;
constexpr std::size_t config_limit = 4 << 20;
constexpr std::uint64_t first_block = 1 << 20, largest_block = 8 << 20;
constexpr std::uint64_t header_limit = 96 << 20;

/// Everything but what may stand in a path as it is.
std::string escaped(std::string_view path) {
  std::string out;
  for (const unsigned char c : path) {
    const bool plain = std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '~' || c == '/';
    out += plain ? std::string(1, static_cast<char>(c)) : fmt::format("%{:02X}", c);
  }
  return out;
}

/// `origin`: "http://NAME:PORT". A name only begins like an address: "127.example.com" is somewhere else.
bool is_this_machine(std::string_view origin) {
  origin.remove_prefix(std::min(origin.find("://") + 3, origin.size()));
  const std::string host(origin.substr(0, origin.rfind(':')));
  in_addr address{};
  if (::inet_pton(AF_INET, host.c_str(), &address) == 1) return ntohl(address.s_addr) >> 24 == 127;
  return host == "localhost" || host == "[::1]";
}

bool is_temporary(int status) {
  return status == 429 || status >= 500;
}

std::string waiting(const WebReply& reply) {
  const auto after = reply.header("retry-after");
  const bool number = !after.empty() && after.size() < 8 &&
                      std::all_of(after.begin(), after.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return number ? fmt::format("; it asks to wait {} s", after) : "";
}

}  // namespace

Result<HubName> parse_hub_name(const std::string& text) {
  HubName name;
  const auto colon = text.find(':');
  name.id = text.substr(0, colon);
  if (colon != std::string::npos) name.file = text.substr(colon + 1);
  if (!is_hub_id(name.id) || name.id.find('/') == std::string::npos ||
      (colon != std::string::npos && name.file.empty()))
    return fail(ErrorCode::usage, fmt::format("'{}' is no name of a model on Hugging Face", printable(text)),
                "Write ORG/NAME, or ORG/NAME:FILE for one GGUF file of it, such as Qwen/Qwen3-8B-GGUF:Q4_K_M.");
  return name;
}

Result<HubSettings> hub_settings() {
  HubSettings settings;
  if (auto endpoint = environment_variable("HF_ENDPOINT"); !endpoint.empty()) {
    while (endpoint.ends_with('/'))
      endpoint.pop_back();
    if (web_origin(endpoint).empty() || endpoint.find_first_of("?#") != std::string::npos)
      return fail(ErrorCode::usage, "HF_ENDPOINT is no address of the web",
                  "It begins with https:// or http://, and holds no name or password.");
    settings.endpoint = endpoint;
  }
  const auto token = environment_variable("HF_TOKEN");
  const bool clean = std::all_of(token.begin(), token.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (!clean) return fail(ErrorCode::usage, "HF_TOKEN holds blanks or other characters that no token has");
  settings.token = Secret(token);
  settings.offline = is_hub_offline(environment_variable("HF_HUB_OFFLINE"));
  if (const auto text = environment_variable("HF_HUB_ETAG_TIMEOUT"); !text.empty()) {
    int count = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (problem != std::errc() || end != text.data() + text.size() || count < 1 || count > 3600)
      return fail(ErrorCode::usage, "HF_HUB_ETAG_TIMEOUT must be a whole number of seconds, from 1 to 3600");
    settings.timeout = std::chrono::seconds(count);
  }
  return settings;
}

HubClient::HubClient(HubSettings settings, std::filesystem::path cache, OpenWeb open)
    : settings_(std::move(settings)), cache_(std::move(cache)), open_(std::move(open)) {
  const auto origin = web_origin(settings_.endpoint);
  if (!settings_.token.reveal().empty() && !origin.starts_with("https:") && !is_this_machine(origin)) {
    settings_.token = Secret();
    notice(fmt::format("HF_TOKEN is not sent to {}: everyone on the way could read it", printable(origin)));
  }
}

void HubClient::notice(std::string text) {
  if (std::find(notices_.begin(), notices_.end(), text) == notices_.end()) notices_.push_back(std::move(text));
}

Result<Web*> HubClient::web() {
  if (!web_) web_ = TRY(open_());
  return web_.get();
}

WebRequest HubClient::request(const std::string& url) const {
  WebRequest request;
  request.url = url;
  request.token = settings_.token;
  request.connect_timeout = settings_.timeout;
  request.idle_timeout = settings_.timeout;
  request.timeout = 4 * settings_.timeout;
  return request;
}

std::string HubClient::address(const HubRepository& repository, const std::string& file) const {
  return fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, repository.id,
                     repository.revision.empty() ? "main" : escaped(repository.revision), escaped(file));
}

Error HubClient::refusal(const std::string& id, const std::string& what, const WebReply& reply) const {
  const bool with_token = !settings_.token.reveal().empty();
  switch (reply.status) {
    case 401:
      if (with_token)
        return {ErrorCode::environment,
                fmt::format("Hugging Face does not accept HF_TOKEN for {}", id),
                "Is the token still valid? gpumod reads it from the variable HF_TOKEN alone.",
                {}};
      return {ErrorCode::not_found,
              fmt::format("Hugging Face shows no model {} without a token", id),
              "Is the name right? For a private model, or one with terms to agree to, set HF_TOKEN.",
              {}};
    case 403:
      return {ErrorCode::environment,
              fmt::format("Hugging Face does not let you see {}", id),
              fmt::format("Agree to its terms at {}/{}, and set HF_TOKEN.", settings_.endpoint, id),
              {}};
    case 404: return {ErrorCode::not_found, fmt::format("Hugging Face has no {}", what), "Is the name right?", {}};
    case 429:
      return {ErrorCode::environment,
              fmt::format("Hugging Face answers no more questions for now (429){}", waiting(reply)),
              with_token ? "" : "With HF_TOKEN set it answers more of them.",
              {}};
    default:
      return {ErrorCode::environment,
              fmt::format("asked for {}, Hugging Face answers {}{}", what, reply.status, waiting(reply)),
              reply.status >= 500 ? "That is trouble of its own: try again later." : "",
              {}};
  }
}

Result<std::string> HubClient::ask(const std::string& id, const std::string& url, const std::string& what,
                                   std::size_t most_bytes, const Judge& judge) {
  auto kept = cache_.find(url);
  if (kept && !judge(kept->body)) kept.reset();
  if (settings_.offline) {
    if (kept) return kept->body;
    return fail(ErrorCode::not_found, fmt::format("offline, and {} was never fetched before", what),
                "Ask once without --offline and without HF_HUB_OFFLINE.");
  }
  // What stands in the way of an answer now, but may not later.
  const auto instead = [&](const Error& problem) -> Result<std::string> {
    if (!kept) return fail(problem);
    notice(fmt::format("{}; shown is what was known on {}", problem.message, format_wall(kept->fetched).substr(0, 10)));
    return kept->body;
  };
  const auto opened = web();
  if (!opened) return instead(opened.error());
  auto question = request(url);
  question.most_bytes = most_bytes;
  if (kept && !kept->etag.empty()) question.headers["If-None-Match"] = kept->etag;
  const auto reply = (*opened)->get(question);
  if (!reply) return instead(reply.error());
  if (reply->status == 304 && kept) {
    kept->fetched = wall_now();
    (void)cache_.keep(url, *kept);  // only the date is newer
    return kept->body;
  }
  if (is_temporary(reply->status)) return instead(refusal(id, what, *reply));
  if (reply->status != 200) return fail(refusal(id, what, *reply));
  if (const auto sound = judge(reply->body); !sound) return instead(sound.error());
  if (const auto written = cache_.keep(url, {reply->header("etag"), reply->body, wall_now()}); !written)
    notice(fmt::format("the answer could not be kept: {}", written.error().message));
  return reply->body;
}

Result<HubRepository> HubClient::repository(const std::string& id) {
  const auto what = fmt::format("model {}", id);
  const auto name = fmt::format("{}, asked for {}", settings_.endpoint, what);
  const auto judge = [&](const std::string& body) -> Result<void> {
    TRY(read_hub_listing(name, body));
    return {};
  };
  const auto url = fmt::format("{}/api/models/{}?blobs=true", settings_.endpoint, id);
  const auto body = TRY(ask(id, url, what, listing_limit, judge));
  auto repository = TRY(read_hub_listing(name, body));
  if (!is_hub_id(repository.id)) repository.id = id;  // it becomes a part of addresses
  return repository;
}

Result<std::string> HubClient::text(const HubRepository& repository, const std::string& file) {
  const auto what = fmt::format("{} of {}", file, repository.id);
  const auto judge = [&](const std::string& body) -> Result<void> {
    boost::system::error_code malformed;
    (void)boost::json::parse(body, malformed);
    if (malformed && file.ends_with(".json")) return fail(ErrorCode::configuration, fmt::format("{} is no JSON", what));
    return {};
  };
  return ask(repository.id, address(repository, file), what, config_limit, judge);
}

/// The beginning of a file on the Hub, fetched in blocks that grow, as far as it is read; kept when it goes.
class HubHeaderSource : public ByteSource {
 public:
  HubHeaderSource(HubClient& client, const HubRepository& repository, const std::string& file, std::uint64_t size)
      : ByteSource(fmt::format("{}:{}", repository.id, file), size),
        client_(client),
        id_(repository.id),
        url_(client.address(repository, file)),
        key_(url_ + "#header") {
    if (auto kept = client_.cache_.find(key_); kept && kept->body.size() <= size) begin_ = std::move(kept->body);
  }
  ~HubHeaderSource() override {
    if (fetched_) (void)client_.cache_.keep(key_, {"", begin_, wall_now()});  // next time it is fetched again, then
  }

  Result<std::size_t> read_at(std::uint64_t offset, char* into, std::size_t count) const override {
    if (offset >= size()) return std::size_t{0};
    const auto end = std::min<std::uint64_t>(offset + count, size());
    while (begin_.size() < end)
      TRY(fetch_more(end));
    const auto amount = static_cast<std::size_t>(end - offset);
    begin_.copy(into, amount, static_cast<std::size_t>(offset));
    return amount;
  }

 private:
  Result<void> fetch_more(std::uint64_t wanted) const {
    if (client_.settings_.offline)
      return fail(ErrorCode::not_found, fmt::format("offline, and the header of {} was never fetched before", name()),
                  "Ask once without --offline and without HF_HUB_OFFLINE.");
    if (wanted > header_limit)
      return fail(ErrorCode::failed,
                  fmt::format("the header of {} goes on for more than {} MiB", name(), header_limit >> 20));
    const auto start = static_cast<std::uint64_t>(begin_.size());
    const auto block = std::clamp<std::uint64_t>(start, first_block, largest_block);
    const auto last = std::min(size(), std::max(start + block, wanted)) - 1;
    auto* web = TRY(client_.web());
    auto question = client_.request(url_);
    question.range = {start, last};
    question.most_bytes = static_cast<std::size_t>(last - start + 1);
    const auto reply = TRY(web->get(question));
    const auto expected = fmt::format("bytes {}-{}/{}", start, last, size());
    const bool whole = reply.status == 200 && start == 0 && reply.body.size() == size();
    const bool part =
        reply.status == 206 && reply.header("content-range") == expected && reply.body.size() == question.most_bytes;
    if (reply.status != 200 && reply.status != 206) return fail(client_.refusal(id_, name(), reply));
    if (!whole && !part)
      return fail(ErrorCode::environment, fmt::format("asked for {} of {}, {} answers something else", expected, name(),
                                                      client_.settings_.endpoint));
    begin_ += reply.body;
    fetched_ = true;
    return {};
  }

  HubClient& client_;
  std::string id_, url_, key_;
  mutable std::string begin_;
  mutable bool fetched_ = false;
};

OpenSource HubClient::headers(const HubRepository& repository) {
  return [this, repository](const std::filesystem::path& path) -> Result<std::unique_ptr<ByteSource>> {
    const auto* file = repository.find(path.string());
    if (!file)
      return fail(ErrorCode::not_found, fmt::format("{} has no file {}", repository.id, printable(path.string())));
    if (!file->size)
      return fail(ErrorCode::configuration, fmt::format("Hugging Face does not say how large {} is", file->name));
    return std::make_unique<HubHeaderSource>(*this, repository, file->name,
                                             static_cast<std::uint64_t>(file->size->count()));
  };
}

namespace {

/// The model that `wanted` names among `models`: by its whole name, or as the only one that has it in its name.
Result<std::string> choose(const HubRepository& repository, const std::vector<std::string>& models,
                           const std::string& wanted) {
  for (const auto& model : models)
    if (model == wanted) return model;
  std::vector<std::string> meant;
  for (const auto& model : models)
    if (lower(model).find(lower(wanted)) != std::string::npos) meant.push_back(model);
  if (meant.size() == 1) return meant.front();
  if (meant.empty())
    return fail(ErrorCode::not_found, fmt::format("{} has no GGUF model {}", repository.id, printable(wanted)),
                models.empty() ? "It has none at all." : did_you_mean(wanted, models));
  constexpr std::size_t shown = 12;
  const auto more = meant.size() > shown ? fmt::format(" and {} more", meant.size() - shown) : "";
  meant.resize(std::min(meant.size(), shown));
  return fail(ErrorCode::usage, fmt::format("{} holds several GGUF models", repository.id),
              fmt::format("Name one of them behind a colon ({}:FILE): {}{}.", repository.id, join(meant, ", "), more));
}

}  // namespace

Result<ModelFacts> HubClient::facts(const HubRepository& repository, std::string& file) {
  const auto models = gguf_models_of(repository);
  const bool safetensors = repository.find("config.json") && !files_of_hub_model(repository, "").empty() &&
                           std::any_of(repository.files.begin(), repository.files.end(),
                                       [](const HubFile& each) { return each.name.ends_with(".safetensors"); });
  if (file.empty() && safetensors) {
    const auto config = TRY(text(repository, "config.json"));
    return facts_of_hub_model(repository, fmt::format("config.json of {}", repository.id), config);
  }
  if (file.empty() && models.empty())
    return fail(
        ErrorCode::not_found,
        fmt::format("{} holds no model that is read here: neither safetensors with a config.json nor GGUF files",
                    repository.id));
  file = TRY(choose(repository, models, file));
  return facts_of(TRY(read_gguf_model(file, headers(repository))));
}

}  // namespace gpumod
