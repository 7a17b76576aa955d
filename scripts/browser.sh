# Sourced by the scripts that show or test a whole login: acts as the browser by curl, and waits for logs and ports. They set
# `dir`, a folder for cookies and pages, and `postiz`, the URL of the stand-in for Postiz.

# free_port FROM: prints the first port from FROM on that nothing listens on.
free_port() {
    local port=$1
    while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

# wait_for FILE TEXT: waits until the file contains the text.
wait_for() {
    for _ in $(seq 200); do
        grep -qs "$2" "$1" && return
        sleep 0.1
    done
    echo "$(basename "$0"): no '$2' within 20 seconds:" >&2
    cat "$1" >&2
    exit 1
}

# browse WHAT URL [FORM]: sends one request as a browser does, and prints it. Leaves the page in $dir/page and the URL of a
# redirect in $next.
browse() {
    local form=()
    [ $# -lt 3 ] || form=(--data "$3")
    local result
    result=$(curl -sS --max-time 30 -H 'Accept: text/html' -b "$dir/cookies" -c "$dir/cookies" -o "$dir/page" -w '%{http_code} %{redirect_url}' "${form[@]}" "$2")
    next=${result#* }
    echo "   browser: $1: ${result%% *}${next:+, redirected to ${next%%\?*}}"
    case ${result%% *} in 2* | 3*) ;; *) cat "$dir/page" >&2; exit 1 ;; esac
}

# field NAME: prints the value of a hidden field of the page.
field() { sed -n "s/.*name=\"$1\" value=\"\([^\"]*\)\".*/\1/p" "$dir/page" | head -n 1; }

# confirm LINK: confirms the code on the auth server's page; $next is then the consent page.
confirm() {
    browse "opens the address from the terminal" "$1"
    browse "confirms the code" "${1%%\?*}" \
        "user_code=$(field user_code)&form_token=$(field form_token)&mac=$(field mac)&action=continue"
}

# allow LINK: signs in at Postiz, agrees on its consent page, and returns to the callback.
allow() {
    browse "reaches Postiz" "$1"
    browse "is signed out there, so sees the sign-in" "$next"
    browse "signs in as ada" "$postiz/auth" "person=ada&returnUrl=$(field returnUrl | sed 's/&amp;/\&/g; s/%/%25/g; s/&/%26/g')"
    browse "is asked whether the CLI may act for ada" "$next"
    local form=action=approve name
    for name in client_id redirect_uri code_challenge code_challenge_method state; do form+="&$name=$(field $name)"; done
    browse "agrees" "$postiz/oauth/authorize" "$form"
    browse "comes back" "$next"
}
