defmodule Support.Releases do
  @moduledoc """
  BEAM nodes of other releases of OTP than the tests' own, each in a chroot.

  `TIEBEAM_RELEASES` names them, as `bin/test releases` does: `27=/a/chroot 29=/another`.
  """

  @inside Path.expand("../../bin/test.d/inside", __DIR__)

  @doc "The release of the tests' own node."
  def own, do: String.to_integer(System.otp_release())

  @doc "Kinds of nodes, for `Support.Target.start/2`: `:beam27`, `:beam29`."
  def kinds, do: for({release, _chroot} <- chroots(), do: :"beam#{release}")

  @doc "The release of a kind; `nil` for the tests' own."
  def of(kind) do
    case Atom.to_string(kind) do
      "beam" <> digits when digits != "" -> String.to_integer(digits)
      _ -> nil
    end
  end

  @doc "The program `erl` of a release, and its first arguments."
  def erl(nil), do: {"erl", []}
  def erl(release), do: {@inside, [Map.fetch!(Map.new(chroots()), release), "erl"]}

  defp chroots do
    for named <- "TIEBEAM_RELEASES" |> System.get_env("") |> String.split() do
      [release, chroot] = String.split(named, "=", parts: 2)
      {String.to_integer(release), chroot}
    end
  end
end
