# Sourced by every script that makes certificates for the tests: in its folder, with openssl, valid for two days. What `$key`
# says is the usual kind of key; the options of openssl say others. Without any, all have the folder's one RSA key of 2048
# bits, which is openssl's default: making each its own takes a second.
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256'

# a_key NAME OPTION...: the options of openssl that make NAME.key, or a copy of the RSA key.
a_key() {
    case "$*" in
    *-newkey*) echo "-keyout $1.key" ;;
    *)
        [ -e rsa.key ] || openssl genrsa -out rsa.key 2048 2>openssl.log || failed
        cp rsa.key "$1.key"
        echo "-key $1.key"
        ;;
    esac
}

# self_signed NAME SUBJECT OPTION...: NAME.key, and NAME.crt that signs itself.
self_signed() {
    name=$1 subject=$2
    shift 2
    with=$(a_key "$name" "$@")
    openssl req -x509 -nodes -days 2 -subj "/CN=$subject" $with -out "$name.crt" "$@" 2>openssl.log || failed
}

# request NAME SUBJECT OPTION...: NAME.key, and NAME.csr to be signed.
request() {
    name=$1 subject=$2
    shift 2
    with=$(a_key "$name" "$@")
    openssl req -new -nodes -subj "/CN=$subject" $with -out "$name.csr" "$@" 2>openssl.log || failed
}

# sign NAME OPTION...: NAME.crt, out of NAME.csr.
sign() {
    name=$1
    shift
    openssl x509 -req -in "$name.csr" -days 2 -out "$name.crt" "$@" 2>openssl.log || failed
}

# signed NAME SUBJECT AUTHORITY HOSTS OPTION...: NAME.key, and NAME.crt signed by AUTHORITY.key for HOSTS (DNS:localhost).
signed() {
    authority=$3 hosts=$4
    name=$1 subject=$2
    shift 4
    request "$name" "$subject" "$@"
    echo "subjectAltName=$hosts" >names
    sign "$name" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -extfile names
}

failed() {
    cat openssl.log >&2
    exit 1
}
