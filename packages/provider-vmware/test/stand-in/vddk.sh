#!/bin/bash
# A stand-in for nbdkit's vddk plugin where that is not installed, run by nbdkit's sh plugin: the same parameters, the same
# refusals, and the bytes of a file that the test names at port DISKFERRY_VDDK_STAND_IN_PORT of this machine.

fail() {
  echo "$1" >&2
  exit 1
}

ask() {
  exec 9<> "/dev/tcp/127.0.0.1/$DISKFERRY_VDDK_STAND_IN_PORT" || fail "VixDiskLib_ConnectEx: Cannot connect to the host"
  local IFS=$'\t' answer
  printf '%s\n' "$*" >&9
  IFS= read -r answer <&9
  exec 9>&-
  case "$answer" in
    "ok "*) printf '%s' "${answer#ok }" ;;
    "error "*) fail "VixDiskLib_ConnectEx: ${answer#error }" ;;
    *) fail "VixDiskLib_ConnectEx: The server gave no answer" ;;
  esac
}

value() { [ -e "$tmpdir/$1" ] && printf '%s' "$(< "$tmpdir/$1")"; }

case "$1" in
  magic_config_key) echo file ;;
  thread_model) echo parallel ;;
  config)
    case "$2" in
      compression)
        case "$3" in none | zlib | fastlz | skipz) ;; *) fail "unknown compression type: $3" ;; esac
        ;;
      password)
        # The descriptor that the program inherited; a password that stands in the arguments is not taken.
        case "$3" in
          -3) head -n 1 <&3 | tr -d '\n' > "$tmpdir/password"; exit 0 ;;
          *) fail "the stand-in reads the password from descriptor 3 alone" ;;
        esac
        ;;
      config | file | libdir | port | server | snapshot | thumbprint | transports | user | vm) ;;
      *) fail "unknown parameter '$2'" ;;
    esac
    printf '%s' "$3" > "$tmpdir/$2"
    ;;
  config_complete)
    for key in file server user password vm snapshot; do
      [ -e "$tmpdir/$key" ] || fail "remote connection requested, missing parameter: $key"
    done
    ;;
  open)
    [ "$2" = true ] || fail "The stand-in is only read"
    ask connect "server=$(value server)" "port=$(value port)" "user=$(value user)" "password=$(value password)" \
      "thumbprint=$(value thumbprint)" "vm=$(value vm)" "snapshot=$(value snapshot)" "transports=$(value transports)" > /dev/null || exit 1
    ask open "vm=$(value vm)" "snapshot=$(value snapshot)" "file=$(value file)" || exit 1
    ;;
  get_size) stat -c %s "$2" ;;
  pread) dd if="$2" bs=1M iflag=skip_bytes,count_bytes skip="$4" count="$3" status=none ;;
  can_write | can_flush | can_trim | can_zero | can_extents | can_multi_conn) exit 3 ;;
  *) exit 2 ;;
esac
