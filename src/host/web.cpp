#include "host/web.h"

#include <algorithm>

#include <boost/url/parse.hpp>
#include <curl/curl.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "base/paths.h"
#include "base/text.h"

namespace gpumod {

namespace {

constexpr int most_redirects = 5;
constexpr std::size_t most_header_bytes = 64 << 10;

/// libcurl's functions, with the types of its own header.
struct Curl {
  void* handle = nullptr;
  decltype(&curl_global_init) global_init = nullptr;
  decltype(&curl_easy_init) easy_init = nullptr;
  decltype(&curl_easy_setopt) easy_setopt = nullptr;
  decltype(&curl_easy_perform) easy_perform = nullptr;
  decltype(&curl_easy_getinfo) easy_getinfo = nullptr;
  decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&curl_easy_strerror) easy_strerror = nullptr;
  decltype(&curl_slist_append) slist_append = nullptr;
  decltype(&curl_slist_free_all) slist_free_all = nullptr;

  template <typename Function>
  bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(handle, name));
    return function != nullptr;
  }
  bool find_all() {
    return find(global_init, "curl_global_init") && find(easy_init, "curl_easy_init") &&
           find(easy_setopt, "curl_easy_setopt") && find(easy_perform, "curl_easy_perform") &&
           find(easy_getinfo, "curl_easy_getinfo") && find(easy_cleanup, "curl_easy_cleanup") &&
           find(easy_strerror, "curl_easy_strerror") && find(slist_append, "curl_slist_append") &&
           find(slist_free_all, "curl_slist_free_all");
  }
};

/// Loaded once and never unloaded: TLS libraries do not like to go.
Result<const Curl*> load_curl(const std::string& file) {
  Curl curl;
  curl.handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!curl.handle) {
    const char* why = ::dlerror();
    return fail(ErrorCode::environment, fmt::format("libcurl cannot be loaded: {}", printable(why ? why : file)),
                "Install it (Debian: libcurl4). Without it nothing can be asked of Hugging Face; all else works.");
  }
  if (!curl.find_all() || curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    return fail(ErrorCode::environment, fmt::format("{} is no libcurl that can be used", printable(file)));
  return new Curl(curl);
}

/// What libcurl's callbacks write into. Nothing in them throws across C: an allocation that fails ends the transfer.
struct Received {
  std::size_t most_bytes = 0;
  std::string head;
  std::string body;
  bool too_long = false;
};

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* into) noexcept {
  auto& received = *static_cast<Received*>(into);
  const auto bytes = size * count;
  if (bytes > received.most_bytes - received.body.size()) {
    received.too_long = true;
    return 0;
  }
  try {
    received.body.append(data, bytes);
  } catch (...) {
    return 0;
  }
  return bytes;
}

std::size_t take_head(char* data, std::size_t size, std::size_t count, void* into) noexcept {
  auto& received = *static_cast<Received*>(into);
  const auto bytes = size * count;
  if (bytes > most_header_bytes - std::min(received.head.size(), most_header_bytes)) return 0;
  try {
    // A new status line begins the head anew: after "100 Continue", or a proxy's answer.
    if (std::string_view(data, bytes).starts_with("HTTP/")) received.head.clear();
    received.head.append(data, bytes);
  } catch (...) {
    return 0;
  }
  return bytes;
}

std::map<std::string, std::string> headers_of(std::string_view head) {
  std::map<std::string, std::string> headers;
  for (const auto line : split_lines(head)) {
    const auto colon = line.find(':');
    if (colon != std::string_view::npos)
      headers[lower(trim(line.substr(0, colon)))] = std::string(trim(line.substr(colon + 1)));
  }
  return headers;
}

/// For messages: signed addresses carry keys behind their '?'.
std::string shown(const std::string& url) {
  return printable(url.substr(0, url.find('?')));
}

class LibcurlWeb : public Web {
 public:
  explicit LibcurlWeb(const Curl& curl) : curl_(curl) {}

  Result<WebReply> get(const WebRequest& request) override {
    const auto origin = web_origin(request.url);
    if (origin.empty())
      return fail(ErrorCode::usage, fmt::format("'{}' is no address of the web", shown(request.url)),
                  "It begins with https:// or http://.");
    const auto deadline = now() + request.timeout;
    std::string url = request.url;
    for (int hop = 0; hop <= most_redirects; ++hop) {
      std::string next;
      auto reply = TRY(get_once(request, url, web_origin(url) == origin, deadline, next));
      if (next.empty()) return reply;
      if (!may_lead_to(url, next))
        return fail(ErrorCode::environment,
                    fmt::format("{} leads to {}, where nothing is followed to", shown(url), shown(next)));
      url = std::move(next);
    }
    return fail(ErrorCode::environment,
                fmt::format("{} leads on and on: more than {} redirects", shown(request.url), most_redirects));
  }

 private:
  struct Handle {
    const Curl& curl;
    CURL* easy = curl.easy_init();
    curl_slist* list = nullptr;
    explicit Handle(const Curl& functions) : curl(functions) {}
    ~Handle() {
      curl.slist_free_all(list);
      curl.easy_cleanup(easy);
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    template <typename Value>
    void set(CURLoption option, Value value) {
      (void)curl.easy_setopt(easy, option, value);
    }
    void header(const std::string& line) { list = curl.slist_append(list, line.c_str()); }
  };

  static long milliseconds(Duration duration) {
    return static_cast<long>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
  }

  void prepare(Handle& handle, const WebRequest& request, const std::string& url, bool trusted, TimePoint deadline,
               Received& received) {
    handle.set(CURLOPT_URL, url.c_str());
    handle.set(CURLOPT_NOSIGNAL, 1L);
    handle.set(CURLOPT_FOLLOWLOCATION, 0L);
    handle.set(CURLOPT_PROTOCOLS_STR, "http,https");
    handle.set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    handle.set(CURLOPT_USERAGENT, "gpumod");
    handle.set(CURLOPT_CONNECTTIMEOUT_MS, milliseconds(request.connect_timeout));
    handle.set(CURLOPT_TIMEOUT_MS, std::max(1L, milliseconds(deadline - now())));
    handle.set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    handle.set(CURLOPT_LOW_SPEED_TIME, std::max(1L, milliseconds(request.idle_timeout) / 1000));
    handle.set(CURLOPT_WRITEFUNCTION, &take_body);
    handle.set(CURLOPT_WRITEDATA, static_cast<void*>(&received));
    handle.set(CURLOPT_HEADERFUNCTION, &take_head);
    handle.set(CURLOPT_HEADERDATA, static_cast<void*>(&received));
    for (const auto& [name, value] : request.headers)
      handle.header(name + ": " + value);
    if (trusted && !request.token.reveal().empty()) {
      handle.header("Authorization: Bearer " + request.token.reveal());
      if (!web_origin(url).starts_with("https:")) handle.set(CURLOPT_NOPROXY, "*");
    }
    handle.set(CURLOPT_HTTPHEADER, handle.list);
    if (request.range) {
      const auto range = fmt::format("{}-{}", request.range->first, request.range->second);
      handle.set(CURLOPT_RANGE, range.c_str());
    }
  }

  /// Fills `next` with where a redirect leads.
  Result<WebReply> get_once(const WebRequest& request, const std::string& url, bool trusted, TimePoint deadline,
                            std::string& next) {
    Handle handle(curl_);
    if (!handle.easy) return fail(ErrorCode::failed, "libcurl gives no handle");
    Received received;
    received.most_bytes = request.most_bytes;
    prepare(handle, request, url, trusted, deadline, received);
    const auto outcome = curl_.easy_perform(handle.easy);
    if (received.too_long)
      return fail(ErrorCode::failed, fmt::format("{} answers more than the {} KiB that were asked for", shown(url),
                                                 request.most_bytes >> 10));
    if (outcome != CURLE_OK) return fail(problem(outcome, url));
    WebReply reply;
    long status = 0;
    (void)curl_.easy_getinfo(handle.easy, CURLINFO_RESPONSE_CODE, &status);
    reply.status = static_cast<int>(status);
    reply.headers = headers_of(received.head);
    reply.body = std::move(received.body);
    const bool redirect = status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
    char* target = nullptr;
    if (redirect && curl_.easy_getinfo(handle.easy, CURLINFO_REDIRECT_URL, &target) == CURLE_OK && target)
      next = target;
    return reply;
  }

  Error problem(CURLcode code, const std::string& url) const {
    std::string what;
    switch (code) {
      case CURLE_OPERATION_TIMEDOUT: what = "it does not answer in time"; break;
      case CURLE_PARTIAL_FILE: what = "the answer breaks off in the middle"; break;
      case CURLE_COULDNT_RESOLVE_HOST: what = "there is no such host, or no network"; break;
      case CURLE_COULDNT_CONNECT: what = "it cannot be reached"; break;
      default: what = curl_.easy_strerror(code);
    }
    return Error{ErrorCode::environment, fmt::format("{}: {}", shown(url), what), {}, {}};
  }

  const Curl& curl_;
};

}  // namespace

std::string WebReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

bool may_lead_to(std::string_view from, std::string_view to) {
  const auto origin = web_origin(to);
  return !origin.empty() && (origin.starts_with("https:") || web_origin(from).starts_with("http:"));
}

std::string web_origin(std::string_view text) {
  // What follows the authority is the server's affair, and often not as strict as the RFC.
  const auto authority = text.find("://");
  if (authority == std::string_view::npos) return {};
  const auto parsed = boost::urls::parse_uri(text.substr(0, text.find_first_of("/?#", authority + 3)));
  if (!parsed) return {};
  const auto scheme = lower(std::string_view(parsed->scheme().data(), parsed->scheme().size()));
  if ((scheme != "http" && scheme != "https") || parsed->encoded_host().empty() || parsed->has_userinfo()) return {};
  std::string host(parsed->encoded_host().data(), parsed->encoded_host().size());
  std::string port(parsed->port().data(), parsed->port().size());
  // Boost 1.81 takes the name 127.0.0.1.example.com for that address, and for a path what is left of it.
  if (const std::string_view rest(parsed->encoded_path().data(), parsed->encoded_path().size()); !rest.empty()) {
    const auto colon = std::min(rest.find(':'), rest.size());
    host += rest.substr(0, colon);
    port = rest.substr(std::min(colon + 1, rest.size()));
    if (lower(host).find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") != std::string::npos ||
        port.find_first_not_of("0123456789") != std::string::npos)
      return {};
  }
  if (port.empty()) port = scheme == "https" ? "443" : "80";
  return fmt::format("{}://{}:{}", scheme, lower(host), port);
}

Result<std::unique_ptr<Web>> open_web() {
  const auto named = environment_variable("GPUMOD_CURL_LIBRARY");
  static const Result<const Curl*> curl = load_curl(named.empty() ? "libcurl.so.4" : named);
  if (!curl) return fail(curl.error());
  return std::make_unique<LibcurlWeb>(**curl);
}

}  // namespace gpumod
