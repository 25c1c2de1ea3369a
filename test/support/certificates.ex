defmodule Support.Certificates do
  @moduledoc """
  Authorities, certificates, and what a node of either kind is told to use them.

  Made anew for each test module, in files of a folder that goes with it.
  """

  # As their modules in `OTP-PUB-KEY` name them.
  @subject_alternative_name {2, 5, 29, 17}
  @extended_key_usage {2, 5, 29, 37}
  @server_and_client [{1, 3, 6, 1, 5, 5, 7, 3, 1}, {1, 3, 6, 1, 5, 5, 7, 3, 2}]
  @rsa {:rsa, 2048, 65537}
  @secp256r1 {:namedCurve, {1, 2, 840, 10045, 3, 1, 7}}
  @rsa_encryption {1, 2, 840, 113_549, 1, 1, 1}
  # NULL, encoded.
  @null <<5, 0>>

  @doc "An authority. To be called in `setup_all`, or in a test."
  def authority(name) do
    folder = Path.join(System.tmp_dir!(), "tiebeam_tls_#{System.pid()}_#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(folder) end)

    # What OTP 25 signs here with a key of an elliptic curve is not as RFC 5758 wants it, and refused by others.
    root = :public_key.pkix_test_root_cert(to_charlist(name), digest: :sha256, key: @rsa)
    root = %{root | cert: with_parameters(root.cert, root.key)}
    %{root: root, ca: write(folder, "ca.pem", [{:Certificate, root.cert}]), folder: folder}
  end

  @doc """
  A certificate of the authority for these hosts (strings; an address stands in it as both a name, where OTP looks, and an address,
  where others do): its file and that of its key. `:rsa` makes it one of RSA, else it is
  of an elliptic curve.
  """
  def certificate(authority, hosts, kind \\ :ec) do
    key = if kind == :rsa, do: @rsa, else: @secp256r1

    extensions = [
      {:Extension, @subject_alternative_name, false, Enum.flat_map(hosts, &names/1)},
      {:Extension, @extended_key_usage, false, @server_and_client}
    ]

    peer = [digest: :sha256, key: key, extensions: extensions]
    chain = %{root: authority.root, intermediates: [], peer: peer}
    %{server_config: made} = :public_key.pkix_test_data(%{server_chain: chain, client_chain: chain})
    file = "#{System.unique_integer([:positive])}"
    {type, secret} = made[:key]

    %{
      certificate:
        write(authority.folder, file <> ".pem", [
          {:Certificate, with_parameters(made[:cert], authority.root.key)}
        ]),
      key: write(authority.folder, file <> ".key", [{type, secret}])
    }
  end

  # RFC 3279 (2.3.1) wants the parameters of an RSA key to be NULL. OTP 29 leaves them out of the certificates that it makes for
  # tests, which OTP itself reads and rustls refuses. They are put in, and the certificate is signed anew.
  defp with_parameters(der, signer) do
    {:Certificate, signed, algorithm, _} = :public_key.pkix_decode_cert(der, :plain)

    case elem(signed, 7) do
      {:SubjectPublicKeyInfo, {type, @rsa_encryption, :asn1_NOVALUE}, key} ->
        signed = put_elem(signed, 7, {:SubjectPublicKeyInfo, {type, @rsa_encryption, @null}, key})

        signature =
          :TBSCertificate |> :public_key.pkix_encode(signed, :plain) |> :public_key.sign(:sha256, signer)

        :public_key.pkix_encode(:Certificate, {:Certificate, signed, algorithm, signature}, :plain)

      _ ->
        der
    end
  end

  defp names(host) do
    name = {:dNSName, to_charlist(host)}

    case :inet.parse_address(to_charlist(host)) do
      {:ok, address} when tuple_size(address) == 4 ->
        [name, iPAddress: for(byte <- Tuple.to_list(address), into: "", do: <<byte>>)]

      {:ok, address} ->
        [name, iPAddress: for(word <- Tuple.to_list(address), into: "", do: <<word::16>>)]

      {:error, :einval} ->
        [name]
    end
  end

  defp write(folder, name, entries) do
    path = Path.join(folder, name)
    pem = :public_key.pem_encode(for {type, der} <- entries, do: {type, der, :not_encrypted})
    File.write!(path, pem)
    path
  end

  @doc """
  Arguments of a node of the given kind. `trust` is the authority that its peers must have.

  Options: `:protocol` (for a BEAM; default `inet_tls`), `:identity` (a certificate), `:require_client_certificate` (default true), and for a BEAM `:client_identity` (`nil` for
  none; default the identity) and `:version` (default both).
  """
  def args(:rust, trust, opts) do
    %{certificate: certificate, key: key} = opts[:identity]
    require = Keyword.get(opts, :require_client_certificate, true)

    ["--tls-ca", trust.ca, "--tls-cert", certificate, "--tls-key", key] ++
      if(require, do: ["--tls-require-client-cert"], else: [])
  end

  def args(:beam, trust, opts) do
    common = [
      verify: :verify_peer,
      cacertfile: to_charlist(trust.ca),
      # With a file of options and no versions in it OTP 25 speaks 1.2 alone.
      versions: List.wrap(opts[:version] || [:"tlsv1.3", :"tlsv1.2"])
    ]

    server =
      if Keyword.get(opts, :require_client_certificate, true),
        do: [fail_if_no_peer_cert: true] ++ common,
        else: Keyword.put(common, :verify, :verify_none)

    server = identity(opts[:identity]) ++ server
    client = identity(Keyword.get(opts, :client_identity, opts[:identity])) ++ common
    path = Path.join(trust.folder, "#{System.unique_integer([:positive])}.conf")
    File.write!(path, :io_lib.format("~tp.~n", [[server: server, client: client]]))
    ["-proto_dist", opts[:protocol] || "inet_tls", "-ssl_dist_optfile", path]
  end

  defp identity(nil), do: []

  defp identity(%{certificate: certificate, key: key}),
    do: [certfile: to_charlist(certificate), keyfile: to_charlist(key)]
end
