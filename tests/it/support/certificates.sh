# Functions that make certificates for the tests with openssl, in the current folder, valid for two days. Scripts source this.
# `$key` holds the options for the usual kind of key; a caller may pass others. Without options, all certificates share the
# folder's one RSA key of 2048 bits (openssl's default), since making one for each would take a second.
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256'

# a_key NAME OPTION...: prints the options of openssl that make NAME.key, or those that use a copy of the RSA key.
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

# self_signed NAME SUBJECT OPTION...: makes NAME.key, and NAME.crt signed by it.
self_signed() {
    name=$1 subject=$2
    shift 2
    with=$(a_key "$name" "$@")
    openssl req -x509 -nodes -days 2 -subj "/CN=$subject" $with -out "$name.crt" "$@" 2>openssl.log || failed
}

# request NAME SUBJECT OPTION...: makes NAME.key, and the signing request NAME.csr.
request() {
    name=$1 subject=$2
    shift 2
    with=$(a_key "$name" "$@")
    openssl req -new -nodes -subj "/CN=$subject" $with -out "$name.csr" "$@" 2>openssl.log || failed
}

# sign NAME OPTION...: makes NAME.crt from NAME.csr.
sign() {
    name=$1
    shift
    openssl x509 -req -in "$name.csr" -days 2 -out "$name.crt" "$@" 2>openssl.log || failed
}

# signed NAME SUBJECT AUTHORITY HOSTS OPTION...: makes NAME.key, and NAME.crt for HOSTS (DNS:localhost) signed by AUTHORITY.key.
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
